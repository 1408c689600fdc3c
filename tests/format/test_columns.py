"""Long arrays are read block by block, and say the same as when they are read whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numcodecs import Blosc
from numpy.typing import NDArray

from cache_builder.format import reader
from cache_builder.format.columns import Column, PackedChunk
from cache_builder.format.errors import CorruptCacheError
from cache_builder.format.reader import open_cache
from tests.caches import synthetic_logits, write_synthetic_cache

RNG = np.random.default_rng(0)
ARRAYS = [
    np.arange(300_001, dtype=np.int64) * 21,
    RNG.integers(0, 1000, 300_001).astype(np.int32),
    RNG.integers(0, 256, 300_001).astype(np.uint8),  # cannot be compressed
    np.full(300_001, -1, np.int32),
    np.arange(3, dtype=np.int32),
]


def packed(array: NDArray[np.generic], shuffle: int = Blosc.BITSHUFFLE, cname: str = "zstd") -> bytes:
    import google_crc32c

    frame = Blosc(cname=cname, clevel=5, shuffle=shuffle).encode(np.ascontiguousarray(array))
    return bytes(frame) + int(google_crc32c.value(frame)).to_bytes(4, "little")


@pytest.mark.parametrize("array", ARRAYS, ids=["offsets", "labels", "noise", "alike", "short"])
@pytest.mark.parametrize("shuffle", [Blosc.BITSHUFFLE, Blosc.SHUFFLE, Blosc.NOSHUFFLE])
@pytest.mark.parametrize("cname", ["zstd", "lz4"])
def test_any_part_of_a_chunk_is_that_of_the_whole(
    array: NDArray[np.generic], shuffle: int, cname: str
) -> None:
    chunk = PackedChunk.of(packed(array, shuffle, cname), array.dtype)
    assert chunk is not None
    size = len(array)
    for start, stop in [(0, size), (0, 1), (size - 1, size), (size // 2, size // 2 + 2), (size // 3, size)]:
        np.testing.assert_array_equal(chunk.part(start, stop), array[start:stop])


def test_a_damaged_chunk_is_none() -> None:
    data = bytearray(packed(ARRAYS[0]))
    data[100] ^= 1
    assert PackedChunk.of(bytes(data), np.dtype(np.int64)) is None
    assert PackedChunk.of(b"", np.dtype(np.int64)) is None
    assert PackedChunk.of(packed(ARRAYS[0]), np.dtype(np.int32)) is None


def test_a_column_holds_one_chunk() -> None:
    array, asked = np.arange(1000), []

    def chunk(number: int) -> PackedChunk:
        asked.append(number)
        found = PackedChunk.of(packed(array[number * 300 : (number + 1) * 300]), array.dtype)
        assert found is not None
        return found

    column = Column(1000, 300, array.dtype, chunk)
    np.testing.assert_array_equal(np.concatenate(list(column.blocks())), array)
    np.testing.assert_array_equal(column.read(range(950, 960)), array[950:960])
    np.testing.assert_array_equal(column.read(range(299, 301)), array[299:301])
    assert asked == [0, 1, 2, 3, 0, 1]


class TestInACache:
    """The arrays of a small cache, read as if they were long."""

    @pytest.fixture
    def path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(1, 100, 40))
        monkeypatch.setattr(reader, "_KEPT_BYTES", 0)
        return tmp_path / "c.zarr"

    def test_labels_are_those_of_the_whole_array(self, path: Path) -> None:
        cache = open_cache(path)
        np.testing.assert_array_equal(cache.labels_of(range(20, 90)), cache.labels[20:90])
        assert cache.has_labels

    @pytest.mark.parametrize("array", ["samples/id_bytes", "samples/id_offsets", "samples/label"])
    def test_another_number_is_an_error(self, path: Path, array: str) -> None:
        chunk = path / array / "c" / "0"
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(data)
        with pytest.raises(CorruptCacheError, match=array):
            open_cache(path).check_header(array)
        chunk.unlink()
        with pytest.raises(CorruptCacheError, match=array):
            open_cache(path).check_header(array)
