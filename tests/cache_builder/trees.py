"""Comparing stores: the bytes of every object, and what a reader decodes from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.reader import Cache, open_cache


def objects(root: Path, *below: str) -> dict[str, bytes]:
    """Every file below the given folders of a store (all of it when none is given), by relative path."""
    folders = [root / name for name in below] if below else [root]
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def contents(root: Path) -> dict[str, Any]:
    """Everything a reader can see of a finished cache."""
    cache = open_cache(root)
    return {
        "cache_id": cache.manifest.completed_id,
        "ids": list(cache.ids),
        "labels": cache.labels.tolist(),
        "digests": cache.digests.tolist(),
        "statistics": cache.statistics(),
        "logits": [logits(cache, view).tobytes() for view in range(cache.manifest.views.count)],
    }


def logits(cache: Cache, view: int) -> NDArray[np.float32]:
    """Decoded logits [N, C] of one view."""
    return cache.decode(cache.read_page(view))
