"""Sample ids as one byte buffer with a hash index: ten million ids without ten million Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from cache_builder.format.errors import UnknownSampleError

_NAMED_IN_ERRORS = 5


class SampleIds(Sequence[str]):
    """The sample ids of a cache in row order.

    ``id_bytes``: UTF-8 of all ids, joined; ``offsets`` [N + 1]: where each begins and the last one ends.
    """

    def __init__(self, id_bytes: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self._buffer = id_bytes.tobytes()
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self._raw(i).decode() for i in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} is out of range for {len(self)} samples")
        return self._raw(row % len(self)).decode()

    def __iter__(self) -> Iterator[str]:
        return (self._raw(row).decode() for row in range(len(self)))

    def _raw(self, row: int) -> bytes:
        return self._buffer[self._offsets[row] : self._offsets[row + 1]]

    def rows_for(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the given ids, in their order; raises :class:`UnknownSampleError` naming a few."""
        # A lone surrogate cannot be UTF-8, so it is in no cache; "surrogatepass" makes it merely unknown.
        raws = [sample_id.encode(errors="surrogatepass") for sample_id in ids]
        hashes, order = self._index
        wanted = np.fromiter(map(xxhash.xxh64_intdigest, raws), np.uint64, len(raws))
        starts = np.searchsorted(hashes, wanted, "left")
        stops = np.searchsorted(hashes, wanted, "right")
        found = (
            # Equal hashes are told apart by the bytes themselves.
            next((int(row) for row in order[start:stop] if self._raw(int(row)) == raw), -1)
            for raw, start, stop in zip(raws, starts, stops, strict=True)
        )
        rows = np.fromiter(found, np.int64, len(raws))
        unknown = np.flatnonzero(rows < 0)
        if unknown.size:
            raise UnknownSampleError([ids[i] for i in unknown[:_NAMED_IN_ERRORS]], unknown.size)
        return rows

    @cached_property
    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        hashes = np.fromiter(
            (xxhash.xxh64_intdigest(self._raw(row)) for row in range(len(self))), np.uint64, len(self)
        )
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order
