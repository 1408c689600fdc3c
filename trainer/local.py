"""A cache in a folder or an object store, read without a server."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import DataError, Manifest, open_cache

# The view of this epoch and the one that the prefetching thread already needs for the next.
_PAGES_KEPT = 2


class StoreSource:
    """One cache of the file system or an fsspec URL. Every method may be called from several threads."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._cache = open_cache(location)
        self._pages: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def manifest(self) -> Manifest:
        """The manifest."""
        return self._cache.manifest

    def array(self, path: str) -> NDArray[Any]:
        """A header array, or ``samples/digest``."""
        return self._cache.digests if path == "samples/digest" else self._cache.header_array(path)

    def records(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Records of the given rows, gathered from the view's page."""
        return self.page(view)[rows]

    def page(self, view: int) -> NDArray[np.uint8]:
        """All records of a view; the pages used last are kept."""
        with self._lock:
            page = self._pages.pop(view, None)
            if page is None:
                page = self._read(view)
            self._pages[view] = page
            while len(self._pages) > _PAGES_KEPT:
                self._pages.pop(next(iter(self._pages)))
            return page

    def close(self) -> None:
        """Drop the pages."""
        self._pages.clear()

    def _read(self, view: int) -> NDArray[np.uint8]:
        try:
            return self._cache.read_page(view)
        except OSError as error:
            raise DataError(f"{self.location}: view {view} cannot be read: {error}") from error
