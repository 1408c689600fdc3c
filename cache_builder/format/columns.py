"""Long arrays of a store that are read where they are wanted, without being in memory as a whole.

A chunk of them has up to 64 MiB. Blosc cuts it into blocks of a megabyte or so, each compressed by itself, so
that a chunk stays as it was stored, some ten times smaller, and only the block that is wanted is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

_ROWS = 2**17
"""Entries that are read at once by who wants all of them."""
_HEADER = struct.Struct("<BBBBIII")
"""Versions of format and codec, flags, size of an item; bytes of all items, of a block, of the frame."""
_STORED_AS_IS, _UNSPLIT = 0x02, 0x10
_CHECKSUM_BYTES = 4


class Chunk(Protocol):
    """A chunk of an array of one axis."""

    def part(self, start: int, stop: int) -> NDArray[Any]:
        """Some consecutive entries."""


class WholeChunk:
    """A chunk that is decoded as a whole."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def part(self, start: int, stop: int) -> NDArray[Any]:
        """As :class:`Chunk` says."""
        return self._array[start:stop]


class PackedChunk:
    """A chunk as Blosc packed it (format 2, c-blosc's README_HEADER.rst), decoded block by block."""

    def __init__(self, frame: bytes, dtype: np.dtype[Any], starts: NDArray[np.int64]) -> None:
        """``starts`` [n + 1]: where each block begins in the frame, by block; the last is the frame's end."""
        self._frame, self._dtype, self._starts = frame, dtype, starts
        *self._kind, self._size, self._block, _ = _HEADER.unpack_from(frame)
        self._ends = np.sort(starts)
        self._latest: tuple[int, NDArray[Any]] = -1, np.empty(0, dtype)

    @classmethod
    def of(cls, data: bytes, dtype: np.dtype[Any]) -> Self | None:
        """Of a stored object, which ends in a checksum; None where it is not packed so, or is damaged."""
        frame = data[:-_CHECKSUM_BYTES]
        if len(frame) < _HEADER.size or data[-_CHECKSUM_BYTES:] != _crc32c(frame):
            return None
        version, _, flags, item, size, block, length = _HEADER.unpack_from(frame)
        if (
            version != 2
            or item != dtype.itemsize
            or length != len(frame)
            or not size
            or block % item
            or not block
        ):
            return None
        count = -(-size // block)
        if flags & _STORED_AS_IS:
            starts = _HEADER.size + block * np.arange(count)
        elif _HEADER.size + 4 * count > length:
            return None
        else:
            starts = np.frombuffer(frame, "<i4", count, _HEADER.size)
        return cls(frame, dtype, np.append(starts, length).astype(np.int64))

    def part(self, start: int, stop: int) -> NDArray[Any]:
        """As :class:`Chunk` says."""
        height = self._block // self._dtype.itemsize
        met = range(start // height, -(-stop // height))
        parts = [
            self._decoded(block)[max(start - block * height, 0) : stop - block * height] for block in met
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self._dtype), *parts])

    def _decoded(self, block: int) -> NDArray[Any]:
        latest = self._latest
        if latest[0] != block:
            self._latest = latest = block, np.frombuffer(self._decode(block), self._dtype)
        return latest[1]

    def _decode(self, block: int) -> Any:
        size = min(self._block, self._size - block * self._block)
        begin = int(self._starts[block])
        if self._kind[2] & _STORED_AS_IS:
            return self._frame[begin : begin + size]
        # Blocks lie in the order in which threads finished them.
        end = int(self._ends[np.searchsorted(self._ends, begin, "right")])
        place = _HEADER.size + 4
        version, codec, flags, item = self._kind
        if size < self._block:
            flags |= _UNSPLIT  # as the last block of a frame is
        header = _HEADER.pack(version, codec, flags, item, size, size, place + end - begin)
        return Blosc().decode(b"".join([header, place.to_bytes(4, "little"), self._frame[begin:end]]))


def _crc32c(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(_CHECKSUM_BYTES, "little")


class Column:
    """An array of one axis, of which a chunk and one of its blocks are held."""

    def __init__(
        self, size: int, chunk_rows: int, dtype: np.dtype[Any], chunk: Callable[[int], Chunk]
    ) -> None:
        """``chunk`` gives a chunk of ``chunk_rows`` entries by its number."""
        self.size, self._rows, self._dtype, self._chunk = size, chunk_rows, dtype, chunk
        self._latest: tuple[int, Chunk] | None = None

    @classmethod
    def over(cls, array: NDArray[Any]) -> Self:
        """Of an array that is in memory."""
        return cls(len(array), max(1, len(array)), array.dtype, lambda _: WholeChunk(array))

    def read(self, rows: range) -> NDArray[Any]:
        """Some consecutive entries."""
        parts = [np.empty(0, self._dtype)]
        for number in range(rows.start // self._rows, -(-rows.stop // self._rows)):
            first = number * self._rows
            found = self._held(number).part(max(rows.start - first, 0), min(rows.stop - first, self._rows))
            parts.append(found)
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All entries in their order."""
        for start in range(0, self.size, _ROWS):
            yield self.read(range(start, min(start + _ROWS, self.size)))

    def _held(self, number: int) -> Chunk:
        latest = self._latest
        if latest is None or latest[0] != number:
            self._latest = None  # before the next one is fetched
            self._latest = latest = number, self._chunk(number)
        return latest[1]
