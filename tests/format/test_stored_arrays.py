"""What lies in a store is compared with the commits; what differs is named."""

from pathlib import Path

import pytest

from cache_builder.format import stored_arrays
from cache_builder.format.errors import CorruptCacheError
from cache_builder.format.layout import tile_arrays
from cache_builder.format.reader import open_cache
from tests.caches import synthetic_logits, write_synthetic_cache


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cache.zarr"
    write_synthetic_cache(path, synthetic_logits(2, 64, 12), tile_rows=16)
    return path


def a_shard(path: Path) -> Path:
    return sorted(file for file in path.glob("records/**/c/**/*") if file.is_file())[-1]


@pytest.mark.parametrize("batch_bytes", [1, 2**23])
def test_every_tile_is_given_once_with_the_bytes_of_its_objects(
    path: Path, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_arrays, "BATCH_BYTES", batch_bytes)
    cache = open_cache(path)
    seen = []
    for batch, held in cache.whole_tiles():
        seen += batch
        for tile in batch:
            for spec in tile_arrays(cache.manifest, tile):
                found = held.held[spec.shard_key(tile)]
                assert found is not None
                assert found.data == (path / spec.shard_key(tile)).read_bytes()
    assert seen == cache.tiles
    assert list(cache.damaged_shards()) == []


def test_a_flipped_bit_is_found_and_named(path: Path) -> None:
    shard = a_shard(path)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    cache = open_cache(path)
    cache.check_shards()  # sizes alone say nothing of it
    named = list(cache.damaged_shards())
    assert len(named) == 1
    assert named[0].startswith(str(shard.relative_to(path)))


def test_a_shard_that_is_shorter_or_gone_is_named_without_reading_any(path: Path) -> None:
    shard = a_shard(path)
    key = str(shard.relative_to(path))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CorruptCacheError, match=key):
        open_cache(path).check_shards()
    shard.unlink()
    with pytest.raises(CorruptCacheError, match=key):
        open_cache(path).check_shards()
