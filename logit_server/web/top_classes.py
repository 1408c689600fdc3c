"""The teacher's best class of every sample in view 0: what a search by answer and by doubt needs."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import KDCacheError
from logit_server.served_caches import ServedCache
from logit_server.storage import read_block

VIEW = 0
"""The view that is looked at."""
UNKNOWN = -1
"""The class of a row that was not looked at yet, or could not be read by the builder."""

_AT_ONCE = 256
"""Records that are decoded before other threads get their turn."""

logger = logging.getLogger("logit_server")


class TopClasses:
    """Best class and its probability by row, found block by block, for caches of one position a sample.

    Eight bytes a row are kept. :meth:`find` is for a thread of its own; what it has found so far may be read
    at any time.
    """

    def __init__(self, served: ServedCache) -> None:
        self.served = served
        self.classes: NDArray[np.int32] = np.full(served.samples, UNKNOWN, np.int32)
        self.probabilities: NDArray[np.float32] = np.zeros(served.samples, np.float32)
        self.rows = 0
        """Rows that were looked at: all before this one."""
        self.failure: str | None = None
        """Why the search for them ended early, in words."""
        self._stopping = threading.Event()

    @property
    def is_complete(self) -> bool:
        """Whether every row was looked at."""
        return self.rows == self.served.samples

    def stop(self) -> None:
        """Let :meth:`find` return soon."""
        self._stopping.set()

    def find(self) -> None:
        """Look at all rows from the first unknown one on. Takes half of one processor at most."""
        self.failure = None
        try:
            blocks = self.served.blocks
            for block in blocks.meeting(range(self.rows, self.served.samples)):
                records = read_block(self.served, VIEW, block)
                self._keep(blocks.rows(block), records)
                if self._stopping.is_set():
                    return
        except KDCacheError as error:
            self.failure = str(error)
            logger.warning("the best classes of cache %r were not found: %s", self.served.name, error)

    def _keep(self, rows: range, records: NDArray[np.uint8]) -> None:
        for start in range(self.rows - rows.start, len(rows), _AT_ONCE):
            began = time.monotonic()
            stop = min(start + _AT_ONCE, len(rows))
            stored = self.served.cache.stored(records[start:stop])
            known = np.isfinite(stored.lse)
            into = slice(rows.start + start, rows.start + stop)
            self.classes[into] = np.where(known, stored.classes[:, 0], UNKNOWN)
            self.probabilities[into] = np.where(known, np.exp(stored.values[:, 0] - stored.lse), 0)
            self.rows = rows.start + stop
            if self._stopping.wait(time.monotonic() - began):
                return
