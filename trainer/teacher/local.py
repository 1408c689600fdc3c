"""A cache in a folder or an object store, read without a server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import Manifest, StorageError, open_cache
from cache_builder.format.class_names import ClassNames
from trainer.teacher.patience import Patience

# The view of this epoch and the one that the prefetching thread already needs for the next.
_PAGES_KEPT = 2

_T = TypeVar("_T")


class StoreSource:
    """One cache of the file system or an fsspec URL. Every method may be called from several threads.

    A store that is out of reach after it was opened is waited for, ``patience_s`` seconds for each reading;
    then, and where waiting cannot help, :class:`StorageError` is raised. Damaged bytes are never waited for.
    """

    def __init__(self, location: str, patience_s: float) -> None:
        self.location = location
        self._patience_s = patience_s
        self._cache = open_cache(location)
        self._pages: dict[int, NDArray[np.uint8]] = {}
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

    def records(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Records of the given rows, gathered from the view's page."""
        return self.page(view)[rows]

    def page(self, view: int) -> NDArray[np.uint8]:
        """All records of a view; the pages used last are kept."""
        with self._lock:
            page = self._pages.pop(view, None)
            if page is None:
                page = self._patiently(lambda: self._cache.read_page(view))
            self._pages[view] = page
            while len(self._pages) > _PAGES_KEPT:
                self._pages.pop(next(iter(self._pages)))
            return page

    def close(self) -> None:
        """Drop the pages, and end whoever waits."""
        self._closed.set()
        self._pages.clear()

    def _patiently(self, read: Callable[[], _T]) -> _T:
        waiting = Patience(self.location, self._patience_s, self._closed, StorageError)
        while True:
            try:
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
