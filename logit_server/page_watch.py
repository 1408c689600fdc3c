"""What happens to pages: counted at once, logged once a second, because a view has a thousand blocks."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from cache_builder.format import CorruptCacheError, StorageError
from logit_server.board import EVICTED_BYTES, EVICTIONS, LOAD_SECONDS, LOADED_BYTES, LOADS, Board
from logit_server.counters import Counters
from logit_server.errors import ReplacedCacheError
from logit_server.log import tell
from logit_server.served_caches import ServedCache

SUM_UP_S = 1.0
"""Seconds between two lines about the pages of one view."""


@dataclass
class _Sum:
    """Blocks since they were last logged."""

    blocks: int = 0
    nbytes: int = 0
    seconds: float = 0.0

    def add(self, blocks: int, nbytes: int, seconds: float = 0.0) -> None:
        self.blocks += blocks
        self.nbytes += nbytes
        self.seconds += seconds


class PageWatch:
    """Of one worker; blocks are loaded in threads."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters or Counters(Board(()))
        self._lock = threading.Lock()
        self._loads: dict[tuple[str, int], _Sum] = defaultdict(_Sum)
        self._evictions = _Sum()
        self._due = 0.0

    @contextlib.contextmanager
    def loading(self, served: ServedCache, view: int, nbytes: int) -> Iterator[None]:
        """Watch how a block of ``nbytes`` of records is read from its store."""
        began = time.perf_counter()
        try:
            yield
        except Exception as error:
            self._counters.add(("failures", _kind_of(error)))
            raise
        seconds = time.perf_counter() - began
        self._counters.add(LOADS)
        self._counters.add(LOAD_SECONDS, seconds)
        self._counters.add(LOADED_BYTES, nbytes)
        with self._lock:
            self._loads[served.name, view].add(1, nbytes, seconds)

    def evicted(self, blocks: int, nbytes: int) -> None:
        """Note that the memory of some blocks was given back."""
        if not blocks:
            return
        self._counters.add(EVICTIONS, blocks)
        self._counters.add(EVICTED_BYTES, nbytes)
        with self._lock:
            self._evictions.add(blocks, nbytes)

    def sum_up(self, *, is_end: bool = False) -> None:
        """Log what happened since the last time, at most once a second."""
        now = time.monotonic()
        if now < self._due and not is_end:
            return
        self._due = now + SUM_UP_S
        with self._lock:
            loads, self._loads = self._loads, defaultdict(_Sum)
            evictions, self._evictions = self._evictions, _Sum()
        for (cache, view), found in loads.items():
            tell(
                logging.INFO, "pages_loaded", "loaded %d block(s) of cache %r, view %d: %d bytes, %.3f s",
                found.blocks, cache, view, found.nbytes, found.seconds,
                cache=cache, view=view, blocks=found.blocks, bytes=found.nbytes, duration=found.seconds,
            )  # fmt: skip
        if evictions.blocks:
            tell(
                logging.INFO, "pages_evicted", "evicted %d block(s): %d bytes",
                evictions.blocks, evictions.nbytes, blocks=evictions.blocks, bytes=evictions.nbytes,
            )  # fmt: skip


def _kind_of(error: Exception) -> str:
    if isinstance(error, CorruptCacheError):
        return "corrupt"
    if isinstance(error, ReplacedCacheError):
        return "replaced"
    return "storage" if isinstance(error, StorageError) else "other"
