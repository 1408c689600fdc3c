"""A store some of whose objects are in memory already: what a reading needs is fetched at once, then decoded.

A shard is one object with an index of its chunks at its end. Where it is small, or all of it is wanted, it is
fetched whole; else its index, whose place follows from the size that the commit states, and then one chunk.
So an object costs one request, or two, however Zarr asks for its parts afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from cache_builder.format.store import ask_many, get_bytes

WHOLE_BYTES = 2**18
"""Shards up to this size are fetched whole: a second request takes longer than so many bytes."""
_CHECKSUM_BYTES = 4
_ENTRY_BYTES = 16  # of the index: offset and length of a chunk


@dataclass(frozen=True)
class Wish:
    """An object that will be read, or one of its chunks."""

    key: str
    size: int = 0
    """Bytes of the object as its commit states them; 0 where nobody knows, so that it is fetched whole."""
    chunks: int = 1
    """Chunks of a shard."""
    chunk: int | None = None
    """The one that will be read; None = all."""
    crc32: int | None = None
    """Of all bytes of the object, as its commit states it."""

    @property
    def is_whole(self) -> bool:
        """Whether the whole object is fetched."""
        return self.chunk is None or self.chunks == 1 or self.size <= WHOLE_BYTES

    @property
    def nbytes(self) -> int:
        """About so many bytes are fetched."""
        return self.size if self.is_whole else self.size // self.chunks

    @property
    def index(self) -> range:
        """Where the index of a shard lies."""
        return range(max(0, self.size - self.chunks * _ENTRY_BYTES - _CHECKSUM_BYTES), self.size)


@dataclass(frozen=True)
class HeldObject:
    """An object of which some bytes are in memory."""

    size: int
    pieces: tuple[tuple[int, bytes], ...]
    """Where they begin in the object, and the bytes."""

    @classmethod
    def whole(cls, data: bytes) -> Self:
        """All of it."""
        return cls(len(data), ((0, data),))

    @property
    def data(self) -> bytes | None:
        """All bytes; None where only some are held."""
        start, data = self.pieces[0]
        return data if start == 0 and len(data) == self.size else None

    def part(self, wanted: ByteRequest | None) -> bytes | None:
        """The bytes that Zarr asks for; None where they are not held."""
        match wanted:
            case RangeByteRequest(start, stop):
                asked = range(start, min(stop, self.size))
            case SuffixByteRequest(suffix):
                asked = range(max(0, self.size - suffix), self.size)
            case OffsetByteRequest(offset):
                asked = range(offset, self.size)
            case _:
                asked = range(self.size)
        for start, data in self.pieces:
            if start <= asked.start and asked.stop <= start + len(data):
                return data[asked.start - start : asked.stop - start]
        return None


class HeldStore(WrapperStore[Store]):
    """A store, some of whose objects are held."""

    def __init__(self, store: Store, held: Mapping[str, HeldObject | None]) -> None:
        """``held``: by key; None for an object that is not there."""
        super().__init__(store)
        self.held = held

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The object or a range of it, from memory where it is held."""
        if key not in self.held:
            return await super().get(key, prototype, byte_range)
        found = self.held[key]
        if found is None:
            return None
        data = found.part(byte_range)
        if data is None:
            return await super().get(key, prototype, byte_range)
        return prototype.buffer.from_bytes(data)


class CompleteStore(HeldStore):
    """A held store whose arrays lack no chunk: one that is not there is an error, and not zeros."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As a held store; a chunk that is not there raises :class:`KeyError`."""
        value = await super().get(key, prototype, byte_range)
        if value is None and "/c/" in key:
            raise KeyError(f"{key} is not there")
        return value


def fetch(store: Store, wishes: Iterable[Wish], indexes: dict[str, bytes]) -> dict[str, HeldObject | None]:
    """What is wished for, asked for concurrently; None for what is not there.

    ``indexes`` keeps the indexes of shards for the next time.
    """
    by_key = {wish.key: wish for wish in wishes}
    found = ask_many(lambda key: fetched(store, by_key[key], indexes), list(by_key))
    return dict(zip(by_key, found, strict=True))


async def fetched(store: Store, wish: Wish, indexes: dict[str, bytes]) -> HeldObject | None:
    """One thing that is wished for, as :func:`fetch` gives it."""
    if wish.is_whole:
        data = await get_bytes(store, wish.key)
        return None if data is None else HeldObject.whole(data)
    index = indexes.get(wish.key) or await get_bytes(store, wish.key, wish.index)
    if index is None:
        return None
    # As long as its commit says only if the index, which stands at the end, comes whole.
    size = wish.index.start + len(index)
    if size != wish.size:
        return HeldObject(size, ((wish.index.start, index),))
    indexes[wish.key] = index
    place = _place(index, wish)
    chunk = None if place is None else await get_bytes(store, wish.key, place)
    pieces = [(wish.index.start, index)]
    if place is not None and chunk is not None:
        pieces.append((place.start, chunk))
    return HeldObject(size, tuple(pieces))


def _place(index: bytes, wish: Wish) -> range | None:
    """Where a chunk lies in its shard; None where the index does not say so, which Zarr will notice."""
    assert wish.chunk is not None
    entries = np.frombuffer(index[:-_CHECKSUM_BYTES], "<u8").reshape(-1, 2)
    start, length = (int(number) for number in entries[wish.chunk])
    return range(start, start + length) if start + length <= wish.index.start else None
