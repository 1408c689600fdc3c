"""Where samples are mixed, each image is read several times: it must be the same one every time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class ImagesRead:
    """The digest of every image that was read, as a sample or as a partner.

    A sample that is replaced while the build runs would otherwise be mixed into one record as it was, and be
    replayed as it is. 9 bytes a row.
    """

    def __init__(self, samples: int) -> None:
        self._digests = np.zeros(samples, np.uint64)
        self._is_known = np.zeros(samples, np.bool_)

    def note(self, digests: Mapping[int, int]) -> list[int]:
        """Note digests by row, 0 for one that could not be read; the rows that were another image before."""
        rows = np.fromiter(digests.keys(), np.int64, len(digests))
        now = np.fromiter(digests.values(), np.uint64, len(digests))
        return self.note_all(rows, now)

    def note_all(self, rows: NDArray[np.int64], digests: NDArray[np.uint64]) -> list[int]:
        """Likewise for arrays [n] of different rows."""
        changed = rows[self._is_known[rows] & (self._digests[rows] != digests)]
        self._digests[rows], self._is_known[rows] = digests, True
        return [int(row) for row in changed]
