"""Sample ids without Python objects: one byte buffer with a hash index, or numbers that need no buffer."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice, pairwise
from typing import Any, Self, overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from cache_builder.format.errors import UnknownSampleError
from cache_builder.format.near_ids import likely_ids, near_ids, told_near

_NAMED_IN_ERRORS = 5
# Ids that are Python objects at the same time.
_BLOCK = 2**16
# Ids that are compared with an unknown one.
_MOST_SCANNED = 200_000


class Ids(Sequence[str]):
    """What all kinds of ids share: slices are ids again, and equality is that of the strings."""

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            start, stop, step = row.indices(len(self))
            rows = range(start, stop, step)
            return self._part(start, max(start, stop)) if step == 1 else [self._id(i) for i in rows]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} is out of range for {len(self)} samples")
        return self._id(row % len(self))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other))  # noqa: B905

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def at(self, rows: NDArray[np.integer[Any]]) -> list[str]:
        """The ids of some rows [n], each from 0: a third of the time that they take one by one."""
        return [self._id(row) for row in rows.tolist()]

    def blocks(self) -> Iterator[SampleIds]:
        """All ids as buffers of consecutive ones, of which one at a time need be in memory."""
        for start in range(0, len(self), _BLOCK):
            part = self._part(start, min(start + _BLOCK, len(self)))
            yield SampleIds.of(part if isinstance(part, SampleIds | DecimalIds) else list(part))

    def first_invalid(self) -> int | None:
        """The first row whose id is not UTF-8, None where all are."""
        row = 0
        for block in self.blocks():
            if block.id_bytes.size and block.id_bytes.max() >= 128:
                bad = next((place for place in range(len(block)) if not _is_utf8(block.raw(place))), None)
                if bad is not None:
                    return row + bad
            row += len(block)
        return None

    @abstractmethod
    def _id(self, row: int) -> str: ...

    @abstractmethod
    def _part(self, start: int, stop: int) -> Self: ...


class SearchedIds(Ids):
    """Ids among which others are looked up."""

    def rows_for(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the given ids, in their order; raises :class:`UnknownSampleError` naming a few."""
        rows = np.empty(len(ids), np.int64)
        for start in range(0, len(ids), _BLOCK):
            rows[start : start + _BLOCK] = self._look_up(ids[start : start + _BLOCK])
        unknown = np.flatnonzero(rows < 0)
        if unknown.size:
            named = [ids[int(i)] for i in unknown[:_NAMED_IN_ERRORS]]
            hint = told_near(named[0], self._near(named[0]))
            raise UnknownSampleError(named, unknown.size, hint)
        return rows

    def _near(self, unknown: str) -> list[str]:
        """Ids that may have been meant; only a part of them is compared, so that it stays quick."""
        rows = self._look_up(likely_ids(unknown))
        found = [self._id(int(row)) for row in rows if row >= 0]
        return found[:3] or near_ids(unknown, islice(self, _MOST_SCANNED))

    @abstractmethod
    def _look_up(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of some ids, -1 for an unknown one."""


class SampleIds(SearchedIds):
    """Ids in row order.

    ``id_bytes``: UTF-8 of all ids, joined; ``offsets`` [N + 1]: where each begins (the first at 0) and the
    last one ends. Bytes that are not UTF-8 are shown as Python shows such file names (surrogate escapes).
    """

    def __init__(self, id_bytes: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.id_bytes = np.ascontiguousarray(id_bytes)
        self.offsets = offsets
        self._view = memoryview(self.id_bytes)  # type: ignore[arg-type]

    @classmethod
    def of(cls, ids: Iterable[str]) -> SampleIds:
        """Any ids as a buffer; those that are one already are given back."""
        if isinstance(ids, SampleIds):
            return ids
        if isinstance(ids, DecimalIds):
            return ids.encoded()
        buffer = IdBuffer()
        for sample_id in ids:
            buffer.append(encoded(sample_id))
        return buffer.finish()

    def __reduce__(self) -> tuple[type[SampleIds], tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        # The index stays behind: who needs one builds it.
        return SampleIds, (self.id_bytes, self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[str]:
        return (str(piece, "utf-8", "surrogateescape") for piece in self._pieces())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SampleIds):
            return len(self) == len(other) and self.begins_with(other)
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def _id(self, row: int) -> str:
        return str(self.raw(row), "utf-8", "surrogateescape")

    def at(self, rows: NDArray[np.integer[Any]]) -> list[str]:
        """See :meth:`Ids.at`."""
        bounds = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
        return [str(self._view[start:stop], "utf-8", "surrogateescape") for start, stop in bounds]

    def raw(self, row: int) -> memoryview:
        """The bytes of an id."""
        return self._view[self.offsets[row] : self.offsets[row + 1]]

    def _part(self, start: int, stop: int) -> SampleIds:
        first, last = self.offsets[start], self.offsets[stop]
        return SampleIds(self.id_bytes[first:last], self.offsets[start : stop + 1] - first)

    def _pieces(self) -> Iterator[memoryview]:
        for start in range(0, len(self), _BLOCK):
            ends = self.offsets[start : start + _BLOCK + 1].tolist()
            yield from (self._view[begin:end] for begin, end in pairwise(ends))

    def begins_with(self, other: SampleIds) -> bool:
        """Whether the first rows are exactly these ids."""
        count, total = len(other), len(other.id_bytes)
        return (
            count <= len(self)
            and np.array_equal(self.offsets[: count + 1], other.offsets)
            and np.array_equal(self.id_bytes[:total], other.id_bytes)
        )

    def rows_for(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """See :meth:`SearchedIds.rows_for`."""
        if isinstance(ids, Ids):
            ids = SampleIds.of(ids)
            # The data set a cache was built from, or its first samples: no id has to be looked up.
            if self.begins_with(ids):
                return np.arange(len(ids))
        return super().rows_for(ids)

    def _look_up(self, ids: Sequence[str]) -> NDArray[np.int64]:
        raws = [encoded(sample_id) for sample_id in ids]
        hashes, order = self.hash_index
        wanted = np.fromiter(map(xxhash.xxh64_intdigest, raws), np.uint64, len(raws))
        starts = np.searchsorted(hashes, wanted, "left")
        stops = np.searchsorted(hashes, wanted, "right")
        found = (
            # Equal hashes are told apart by the bytes themselves.
            next((int(row) for row in order[start:stop] if self.raw(int(row)) == raw), -1)
            for raw, start, stop in zip(raws, starts, stops, strict=True)
        )
        return np.fromiter(found, np.int64, len(raws))

    def in_byte_order(self) -> Iterator[bytes]:
        """The ids sorted; for ids without zero bytes, as file names are."""
        lengths = np.diff(self.offsets)
        width = int(lengths.max(initial=1))
        padded = np.zeros((len(self), width), np.uint8)
        padded[np.arange(width) < lengths[:, None]] = self.id_bytes
        names = padded.view(f"S{width}").reshape(-1)
        names.sort()
        for start in range(0, len(self), _BLOCK):
            yield from names[start : start + _BLOCK].tolist()

    def hashes(self) -> NDArray[np.uint64]:
        """A hash of each id [N]."""
        return np.fromiter(map(xxhash.xxh64_intdigest, self._pieces()), np.uint64, len(self))

    @cached_property
    def hash_index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The hashes of all ids, rising, and the row of each; may be set to what another process made."""
        hashes = self.hashes()
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order


class DecimalIds(Ids):
    """The numbers from ``first`` on, in decimal: ids that take no memory."""

    def __init__(self, count: int, first: int = 0) -> None:
        self._range = range(first, first + count)

    def __len__(self) -> int:
        return len(self._range)

    def _id(self, row: int) -> str:
        return str(self._range[row])

    def _part(self, start: int, stop: int) -> DecimalIds:
        return DecimalIds(stop - start, self._range.start + start)

    def encoded(self) -> SampleIds:
        """As a buffer, made without a string for each."""
        numbers = np.array([self._range.start, self._range.stop])
        bounds = [*(10**digits for digits in range(1, 19)), 2**63 - 1]
        # Per number of digits, the part of the range that has it.
        parts = list(zip(np.clip([0, *bounds[:-1]], *numbers), np.clip(bounds, *numbers), strict=True))
        buffer = np.empty(sum((stop - start) * (i + 1) for i, (start, stop) in enumerate(parts)), np.uint8)
        filled = 0
        for digits, (start, stop) in enumerate(parts, start=1):
            powers = 10 ** np.arange(digits - 1, -1, -1, dtype=np.int64)
            for first in range(start, stop, _BLOCK):
                block = np.arange(first, min(first + _BLOCK, stop))[:, None] // powers % 10 + ord("0")
                buffer[filled : filled + block.size] = block.reshape(-1)
                filled += block.size
        offsets = np.zeros(len(self) + 1, np.int64)
        counts = [stop - start for start, stop in parts]
        np.cumsum(np.repeat(np.arange(1, len(parts) + 1, dtype=np.int8), counts), out=offsets[1:])
        return SampleIds(buffer, offsets)


class IdBuffer:
    """Ids being collected: two growing buffers and nothing per id."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, raw: bytes) -> None:
        """Add one id."""
        self._bytes += raw
        self._ends.append(len(self._bytes))

    def finish(self) -> SampleIds:
        """The ids, on the same memory: nothing can be added afterwards."""
        return SampleIds(np.frombuffer(self._bytes, np.uint8), np.frombuffer(self._ends, np.int64))


def encoded(sample_id: str) -> bytes:
    """The bytes of an id."""
    try:
        return sample_id.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        # Any other lone surrogate cannot be UTF-8 nor a file name, so it is in no cache: merely unknown.
        return sample_id.encode(errors="surrogatepass")


def _is_utf8(raw: memoryview) -> bool:
    try:
        str(raw, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
