"""A cache in a folder or an object store, read without a server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache_builder.client.patience import Patience
from cache_builder.format import Manifest, StorageError, open_cache
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs import Part
from cache_builder.format.positions import Positions
from cache_builder.format.waiting import patience_at_most

# The view of this epoch and the one that the prefetching thread already needs for the next.
_VIEWS_KEPT = 2

_STORE_PATIENCE_S = 5.0
"""How long one request is repeated before the whole reading is, which also ends when the source is closed."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class _View:
    """The records of a view as far as they were read."""

    records: NDArray[np.uint8]
    """uint8 [P, record_bytes], by position; anything in those of blocks that were not read."""
    is_read: NDArray[np.bool_]
    """By block."""


class StoreSource:
    """One cache of the file system or an fsspec URL. Every method may be called from several threads.

    A store that is out of reach after it was opened is waited for, ``patience_s`` seconds for each reading;
    then, and where waiting cannot help, :class:`StorageError` is raised. Damaged bytes are never waited for.
    """

    def __init__(self, location: str, patience_s: float) -> None:
        self.location = location
        self._patience_s = patience_s
        self._cache = open_cache(location)
        self._blocks = self._cache.position_blocks
        self._views: dict[int, _View] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def manifest(self) -> Manifest:
        """The manifest."""
        return self._patiently(lambda: self._cache.manifest)

    def names(self) -> ClassNames:
        """What the classes are called."""
        return self._patiently(lambda: self._cache.names)

    def array(self, path: str) -> NDArray[Any]:
        """A header array, or ``samples/digest``."""
        if path == "samples/digest":
            return self._patiently(lambda: self._cache.digests)
        return self._patiently(lambda: self._cache.header_array(path))

    def positions(self) -> Positions:
        """Which positions the rows own."""
        return self._patiently(lambda: self._cache.positions)

    def records(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Records of the given rows; of the store, only blocks that hold some of them are read, once."""
        wanted = self.positions().of(rows)
        return self._view(view, np.unique(wanted // self._blocks.height)).records[wanted]

    def page(self, view: int) -> NDArray[np.uint8]:
        """All records of a view; the views used last are kept."""
        if self.positions().is_padded:
            return self.records(view, np.arange(self._cache.blocks.samples))
        return self._view(view, np.arange(len(self._blocks))).records

    def _view(self, view: int, blocks: NDArray[np.int64]) -> _View:
        """A view of which at least these blocks, ascending, are there."""
        with self._lock:
            kept = self._views.pop(view, None) or self._empty_view()
            self._views[view] = kept
            while len(self._views) > _VIEWS_KEPT:
                self._views.pop(next(iter(self._views)))
            for run in self._blocks.runs(blocks[~kept.is_read[blocks]]):
                self._read_into(kept, view, run)
            return kept

    def _empty_view(self) -> _View:
        # Memory that nobody has written to takes none, so a view of which few rows are asked for is small.
        records = np.empty((self._blocks.samples, self._cache.record_bytes), np.uint8)
        return _View(records, np.zeros(len(self._blocks), np.bool_))

    def _read_into(self, kept: _View, view: int, run: range) -> None:
        out, shared = kept.records[run.start : run.stop], self._shared(view, run)
        if shared is None:
            self._patiently(lambda: self._cache.read_positions(view, run, out))
        else:
            own = self._patiently(lambda: self._cache.read_positions(view, run, part=Part.OWN))
            np.concatenate([shared, own], axis=1, out=out)
        met = self._blocks.meeting(run)
        kept.is_read[met.start : met.stop] = True

    def _shared(self, view: int, run: range) -> NDArray[np.uint8] | None:
        """What records share with those of a view that was read before, where there is one."""
        nbytes, height = self._cache.layout.shared_bytes, self._cache.manifest.tiling.views
        met = self._blocks.meeting(run)
        for other, kept in self._views.items():
            is_there = other != view and other // height == view // height
            if nbytes and is_there and kept.is_read[met.start : met.stop].all():
                return kept.records[run.start : run.stop, :nbytes]
        return None

    def close(self) -> None:
        """Drop the views, and end whoever waits."""
        self._closed.set()
        self._views.clear()

    def _patiently(self, read: Callable[[], _T]) -> _T:
        waiting = Patience(self.location, self._patience_s, self._closed, StorageError)
        while True:
            try:
                with patience_at_most(min(_STORE_PATIENCE_S, self._patience_s)):
                    result = read()
            except StorageError as error:
                if not error.waiting_helps:
                    raise
                problem = str(error)
            except OSError as error:  # a disk, or what is mounted there
                problem = f"it cannot be read ({error.strerror or error})"
            else:
                waiting.over()
                return result
            waiting.wait(problem)
