import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_builder.format import Cache, CorruptCacheError, StorageError, open_cache
from cache_builder.format.manifest import Manifest
from logit_server.errors import ReplacedCacheError
from logit_server.places import Place
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.extended import extend_synthetic
from tests.format.damage import changed, flipped

SHARD = Path("records", "logits", "topk_residual", "c", "0", "1", "0")


def replace(path: Path, seed: int = 1) -> Manifest:
    shutil.rmtree(path)
    return write_synthetic_cache(path, synthetic_logits(3, 100, 40, seed), sketch=True)


def page(view: int) -> Callable[[Cache], bytes]:
    return lambda cache: cache.read_page(view).tobytes()


@pytest.fixture
def old(own_cache: Path) -> Cache:
    return open_cache(own_cache)


def test_what_is_read_is_what_the_cache_has(old: Cache) -> None:
    place = Place(old)
    assert place.look() is old
    assert place.read(old, page(1)) == old.read_page(1).tobytes()
    assert place.look() is old


def test_records_of_a_cache_that_was_extended_are_read_on(own_cache: Path, old: Cache) -> None:
    place, expected = Place(old), [old.read_page(view).tobytes() for view in range(3)]
    assert place.read(old, page(0)) == expected[0]
    noticed: list[str] = []
    place.notice = lambda: noticed.append("noticed")
    new = extend_synthetic(own_cache, 6)
    assert [place.read(old, page(view)) for view in range(3)] == expected
    assert place.now.manifest.cache_id == new.cache_id
    assert noticed == ["noticed"]
    assert place.read(place.now, page(5)) == open_cache(own_cache).read_page(5).tobytes()
    with pytest.raises(ReplacedCacheError):
        place.read(old, page(0), as_it_was=True)


@pytest.mark.parametrize("looks_first", [True, False])
def test_of_a_cache_that_was_replaced_nothing_is_read(own_cache: Path, old: Cache, looks_first: bool) -> None:
    place, kept = Place(old), Path(shutil.copytree(own_cache, own_cache.with_name("kept")))
    place.read(old, page(0))
    new = replace(own_cache)
    if looks_first:
        assert place.look().manifest.cache_id == new.cache_id
    with pytest.raises(ReplacedCacheError, match="was replaced"):
        place.read(old, page(0))
    assert place.read(place.now, page(0)) == open_cache(own_cache).read_page(0).tobytes()
    shutil.rmtree(own_cache)
    kept.rename(own_cache)
    assert place.read(old, page(0)) == old.read_page(0).tobytes()


def test_what_was_read_while_another_cache_took_the_place_is_thrown_away(own_cache: Path, old: Cache) -> None:
    place, expected = Place(old), old.read_page(2).tobytes()
    reads = 0

    def read(cache: Cache) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 1:
            extend_synthetic(own_cache, 4)
            return b"of both"
        return cache.read_page(2).tobytes()

    assert place.read(old, read) == expected
    assert reads == 2


def test_a_cache_that_went_and_came_back_during_a_read_is_read_once_more(own_cache: Path, old: Cache) -> None:
    place, reads = Place(old), []

    def read(cache: Cache) -> str:
        reads.append(cache.location)
        if len(reads) == 1:
            own_cache.rename(own_cache.with_name("elsewhere"))
            own_cache.with_name("elsewhere").rename(own_cache)
        return f"read {len(reads)}"

    assert place.read(old, read) == "read 2"


def test_what_never_rests_is_not_believed(own_cache: Path, old: Cache) -> None:
    def read(_: Cache) -> None:
        extend_synthetic(own_cache, open_cache(own_cache).manifest.views.count + 1)

    with pytest.raises(StorageError, match="changes while it is read"):
        Place(old).read(old, read)


def taken_away(path: Path) -> Callable[[], Any]:
    path.rename(path.with_name("elsewhere"))
    return lambda: path.with_name("elsewhere").rename(path)


def parent_taken_away(path: Path) -> Callable[[], Any]:
    away = path.parent.with_name("parent-elsewhere")
    path.parent.rename(away)
    return lambda: away.rename(path.parent)


def a_file_in_its_place(path: Path) -> Callable[[], Any]:
    back = taken_away(path)
    path.write_bytes(b"")
    return lambda: (path.unlink(), back())


def an_empty_folder_in_its_place(path: Path) -> Callable[[], Any]:
    back = taken_away(path)
    path.mkdir()
    return lambda: (path.rmdir(), back())


def links_in_a_circle(path: Path) -> Callable[[], Any]:
    """A read fails with an error that is not "no such file", as on a disk that does not answer."""
    back = taken_away(path)
    path.symlink_to(path)
    return lambda: (path.unlink(), back())


@pytest.mark.parametrize(
    "take",
    [taken_away, parent_taken_away, a_file_in_its_place, an_empty_folder_in_its_place, links_in_a_circle],
)
@pytest.mark.parametrize("looked", [True, False])
def test_what_is_away_is_not_damaged_and_heals(
    own_cache: Path, old: Cache, take: Callable[[Path], Callable[[], Any]], looked: bool
) -> None:
    place, expected = Place(old), old.read_page(1).tobytes()
    if looked:
        place.read(old, page(0))
    bring_back = take(own_cache)
    for attempt in (place.look, lambda: place.read(old, page(1))):
        with pytest.raises((StorageError, OSError)) as caught:
            attempt()
        for word in ("--repair", "rebuild", "delete"):
            assert word not in str(caught.value)
    bring_back()
    assert place.read(old, page(1)) == expected
    assert place.now is old


def test_damage_is_damage_while_the_store_answers(own_cache: Path, old: Cache) -> None:
    place, shard = Place(old), own_cache / SHARD
    data = shard.read_bytes()
    for damaged in (flipped(data, 800), data[:-1], None):
        with changed(shard, damaged), pytest.raises(CorruptCacheError, match="rows 32-63"):
            place.read(old, page(0))
    assert place.read(old, page(0)) == old.read_page(0).tobytes()


def test_a_cache_that_is_being_written_is_waited_for(own_cache: Path, old: Cache) -> None:
    place, expected = Place(old), old.read_page(0).tobytes()
    kept = Path(shutil.copytree(own_cache, own_cache.with_name("kept")))
    shutil.rmtree(own_cache)
    write_synthetic_cache(own_cache, synthetic_logits(3, 100, 40), sketch=True, commit=3)
    for attempt in (place.look, lambda: place.read(old, page(0))):
        with pytest.raises(StorageError, match="is being written"):
            attempt()
    shutil.rmtree(own_cache)
    kept.rename(own_cache)
    assert place.read(old, page(0)) == expected


def test_something_else_at_the_place_is_no_damage_either(own_cache: Path, old: Cache) -> None:
    place, root = Place(old), own_cache / "zarr.json"
    noticed: list[bool] = []
    place.notice = lambda: noticed.append(place.lost is not None)
    other = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'
    with changed(root, other):
        for _ in range(2):
            with pytest.raises(ReplacedCacheError, match="something else"):
                place.read(old, page(0))
    assert place.read(old, page(0)) == old.read_page(0).tobytes()
    assert noticed == [True, False]


def test_the_digest_of_an_array_never_blames_an_absent_store(own_cache: Path, old: Cache) -> None:
    back = taken_away(own_cache)
    with pytest.raises(StorageError, match="out of reach"):
        old.header_array("probe/pixels")
    back()
    np.testing.assert_array_equal(old.header_array("probe/pixels"), open_cache(own_cache).probe_pixels)
