"""Which rows and views of a cache are asked for, checked before anything is sent or read."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_builder.format.errors import DataError
from cache_builder.format.manifest import Manifest


def checked_rows(manifest: Manifest, rows: ArrayLike) -> NDArray[np.int64]:
    """Rows [n] as they are asked for; :class:`DataError` for any that the cache does not have."""
    found = np.asarray(rows)
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise DataError(f"rows must be integers, got {found.dtype}: of a mask, take np.flatnonzero(mask)")
    wanted = found.astype(np.int64).reshape(-1)
    samples = manifest.data.samples
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < samples):
        raise DataError(f"rows must lie in 0 to {samples - 1}, got {wanted.min()} to {wanted.max()}")
    return wanted


def check_view(manifest: Manifest, view: int) -> None:
    """Raise :class:`DataError` for a view that the cache does not have."""
    count = manifest.views.count
    if not 0 <= view < count:
        raise DataError(f"view {view} is out of range: the cache has views 0 to {count - 1}")
