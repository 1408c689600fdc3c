"""What the views of a sample share, kept once it has come: of the next view only its own part is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.manifest import Manifest

MOST_BYTES = 2 * 2**30
"""Of memory for the shared parts of one view group. A cache with more of them is read record by record."""

Read = Callable[[int, NDArray[np.int64]], NDArray[np.uint8]]
"""From a view and rows [n], none of them twice, to what they share with its group, uint8 [n, bytes]."""


@dataclass(frozen=True)
class _Group:
    """The shared parts of one view group as far as they have come."""

    parts: NDArray[np.uint8]
    """uint8 [N, bytes]; anything in those that have not come."""
    is_there: NDArray[np.bool_]
    """[N]."""


class SharedParts:
    """The shared parts of the group that was read last. Every method may be called from several threads."""

    def __init__(self, manifest: Manifest, read: Read) -> None:
        self._manifest, self._read = manifest, read
        self._groups: dict[int, _Group] = {}
        self._lock = threading.Lock()

    @classmethod
    def worth_keeping(cls, manifest: Manifest) -> bool:
        """Whether views share something that fits into memory."""
        nbytes = manifest.codec.layout.shared_bytes * manifest.data.samples
        return manifest.positions.kind == "one" and 0 < nbytes <= MOST_BYTES

    def of(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The shared parts uint8 [n, bytes] of rows [n] in a view; those that are not there are read."""
        with self._lock:
            group = self._group(view // self._manifest.tiling.views)
            missing = np.unique(rows[~group.is_there[rows]])
            if missing.size:
                group.parts[missing] = self._read(view, missing)
                group.is_there[missing] = True
            return group.parts[rows]

    def _group(self, number: int) -> _Group:
        found = self._groups.get(number)
        if found is None:
            samples = self._manifest.data.samples
            # Memory that nobody has written to takes none.
            parts = np.empty((samples, self._manifest.codec.layout.shared_bytes), np.uint8)
            found = _Group(parts, np.zeros(samples, np.bool_))
            self._groups = {number: found}
        return found
