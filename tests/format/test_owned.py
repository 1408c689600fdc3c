"""No code of ours removes what it did not write."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from cache_builder.format import ConfigError
from cache_builder.format.layout import tile_arrays, tiles
from cache_builder.format.owned import (
    block_lease_key,
    creations_beside,
    foreign,
    is_own,
    is_partial,
    leased_block,
    partials_beside,
    remove,
    removed,
)
from tests.caches import synthetic_logits, write_synthetic_cache

UNIQUE = uuid.uuid4().hex
FOREIGN = [
    "photo.jpg",
    "x.partial",
    f"notes.{UNIQUE}.partial",
    "records/logits/lse/c/0/mine",
    "deep/er/zarr.json",
]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "c.zarr"
    write_synthetic_cache(path, synthetic_logits(3, 40, 12), sketch=True, top_k=3, rank=8)
    return path


def test_every_object_of_a_cache_is_ours_and_can_be_removed(cache: Path) -> None:
    assert foreign(cache) == []
    assert removed(cache) == []
    assert not cache.exists()


def test_what_is_not_ours_stays(cache: Path) -> None:
    for name in FOREIGN:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("precious")
    (cache / "empty").mkdir()
    (cache / "codec" / "link").symlink_to(cache)
    (cache / "zarr.json").rename(cache.parent / "elsewhere")
    (cache / "zarr.json").symlink_to(cache.parent / "elsewhere")
    expected = sorted([*FOREIGN, "empty", "deep", "deep/er", "codec/link", "zarr.json"])
    assert foreign(cache) == expected
    with pytest.raises(ConfigError, match=r"codec/link, deep, deep/er\): nothing was removed"):
        remove(cache)
    assert foreign(cache) == expected
    assert removed(cache) == expected
    assert {(cache / name).read_text() for name in FOREIGN} == {"precious"}
    assert (cache.parent / "elsewhere").exists()


def test_what_a_dead_writer_left_of_an_object_is_ours(cache: Path) -> None:
    manifest = write_synthetic_cache(cache.parent / "d.zarr", synthetic_logits(1, 40, 12))
    tile = next(tiles(manifest))
    keys = ["zarr.json", tile.key, *(spec.shard_key(tile) for spec in tile_arrays(manifest, tile))]
    for key in [*keys, "zarr", "records/logits/lse/zarr"]:  # Zarr cuts a suffix off
        assert is_partial(f"{key}.{UNIQUE}.partial")
        assert not is_partial(f"{key}.partial")
    assert not is_partial(f"photo.{UNIQUE}.partial")
    assert not is_own("commits/g1.json")


def test_leases_of_row_blocks_are_ours() -> None:
    key = block_lease_key(12, 1)
    assert leased_block(key) == 12
    assert is_own(key)
    assert is_partial(f"{key}.{UNIQUE}.partial")
    for other in (".kdcache-leases/photo.jpg", f"x/{key}", f"{key}.partial", "commits/index"):
        assert leased_block(other) is None
    assert not is_own(".kdcache-leases/photo.jpg")


def test_names_beside_an_output_are_exact(tmp_path: Path) -> None:
    for name in ["a.npz", f".a.npz.{UNIQUE}.partial", ".a.npz.partial", f".ba.npz.{UNIQUE}.partial"]:
        (tmp_path / name).touch()
    assert [path.name for path in partials_beside(tmp_path / "a.npz")] == [f".a.npz.{UNIQUE}.partial"]
    for name in [f".a.npz.{UNIQUE}.creating", ".a.npz.1.creating", f"a.npz.{UNIQUE}.creating"]:
        (tmp_path / name).mkdir()
    assert [path.name for path in creations_beside(tmp_path / "a.npz")] == [f".a.npz.{UNIQUE}.creating"]


@pytest.mark.parametrize("kind", ["file", "link", "nothing"])
def test_a_temporary_folder_that_is_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".x.extending"
    if kind == "file":
        path.write_text("mine")
    if kind == "link":
        path.symlink_to(tmp_path)
    if kind == "nothing":
        remove(path)
        return
    with pytest.raises(ConfigError, match="nothing was removed"):
        remove(path)
    assert path.exists()
