"""The sample ids of a store, read where they are wanted: for who looks up a few, however many there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from cache_builder.format.columns import Column
from cache_builder.format.ids import SampleIds, SearchedIds, encoded


class StoredIds(SearchedIds):
    """Ids in row order. To look some up takes a pass over all of them, to name one takes a block or two."""

    def __init__(self, text: Column, offsets: Column) -> None:
        """As the arrays of :class:`SampleIds`."""
        self._text, self._offsets = text, offsets

    def __len__(self) -> int:
        return self._offsets.size - 1

    def _id(self, row: int) -> str:
        return self._part(row, row + 1)[0]

    def _part(self, start: int, stop: int) -> SampleIds:  # type: ignore[override]
        offsets = self._offsets.read(range(start, stop + 1))
        text = self._text.read(range(int(offsets[0]), int(offsets[-1])))
        return SampleIds(text, offsets - offsets[0])

    def _look_up(self, ids: Sequence[str]) -> NDArray[np.int64]:
        wanted = dict.fromkeys(map(encoded, ids), -1)
        hashes = np.fromiter(map(xxhash.xxh64_intdigest, wanted), np.uint64, len(wanted))
        first = 0
        for block in self.blocks():
            for place in np.flatnonzero(np.isin(block.hashes(), hashes)).tolist():
                raw = block.raw(place).tobytes()
                if wanted.get(raw) == -1:
                    wanted[raw] = first + place
            first += len(block)
        return np.array([wanted[encoded(sample_id)] for sample_id in ids], np.int64)
