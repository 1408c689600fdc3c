"""Long arrays are read block by block, and say the same as when they are read whole."""

from __future__ import annotations

import numpy as np
import pytest
from numcodecs import Blosc
from numpy.typing import NDArray

from cache_builder.format.columns import Column, PackedChunk

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
