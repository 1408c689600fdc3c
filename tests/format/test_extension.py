import shutil
from pathlib import Path

import numpy as np

from cache_builder.format import open_cache
from cache_builder.format.extension import Earlier, extends, holds_all_of
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.extended import extend_synthetic


def copied(path: Path, name: str) -> Path:
    return Path(shutil.copytree(path, path.with_name(name)))


def written(folder: Path, *, tile_views: int, seed: int = 0) -> Path:
    path = folder / "c.zarr"
    write_synthetic_cache(path, synthetic_logits(3, 70, 20, seed), sketch=True, tile_views=tile_views)
    return path


def test_an_extended_cache_holds_the_old_one_and_not_the_other_way_round(tmp_path: Path) -> None:
    path = written(tmp_path, tile_views=2)
    old = open_cache(copied(path, "old.zarr"))
    extend_synthetic(path, 5)
    new = open_cache(path)
    assert new.manifest.cache_id != old.manifest.cache_id
    assert holds_all_of(new, old)
    assert not holds_all_of(old, new)
    assert holds_all_of(old, old)
    for view in range(3):
        np.testing.assert_array_equal(new.read_page(view), old.read_page(view))


def test_a_cache_that_was_extended_twice_holds_both(tmp_path: Path) -> None:
    path = written(tmp_path, tile_views=2)
    first = open_cache(copied(path, "first.zarr"))
    extend_synthetic(path, 4)
    second = open_cache(copied(path, "second.zarr"))
    extend_synthetic(path, 7)
    new = open_cache(path)
    assert extends(new.manifest) == (first.manifest.cache_id, second.manifest.cache_id)
    assert holds_all_of(new, first)
    assert holds_all_of(new, second)


def test_without_its_word_only_whole_tiles_are_proof(tmp_path: Path) -> None:
    for tile_views, is_proven in ((2, False), (1, True)):
        folder = tmp_path / str(tile_views)
        folder.mkdir()
        path = written(folder, tile_views=tile_views)
        old = open_cache(copied(path, "old.zarr"))
        extend_synthetic(path, 5, says_so=False)
        assert holds_all_of(open_cache(path), old) is is_proven


def test_another_cache_does_not_hold_it(tmp_path: Path) -> None:
    path = written(tmp_path, tile_views=1)
    old = open_cache(copied(path, "old.zarr"))
    shutil.rmtree(path)
    other = open_cache(written(tmp_path, tile_views=1, seed=1))
    assert not holds_all_of(other, old)


def test_whatever_a_cache_holds_is_found_and_hardly_anything_else(tmp_path: Path) -> None:
    # Views of the last tile, or of the only one, or of none become others.
    caches = []
    for seed, tile_views in enumerate((1, 2, 4, 1, 2, 4)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = written(folder, tile_views=tile_views, seed=seed)
        for views in (4, 6):
            caches.append(open_cache(copied(path, f"before-{views}.zarr")))
            extend_synthetic(path, views)
        caches.append(open_cache(path))
    earlier = Earlier(caches)
    for new in caches:
        held = [old for old in caches if holds_all_of(new, old)]
        found = earlier.candidates(new)
        assert [old for old in found if holds_all_of(new, old)] == held
        assert len(found) <= 3
