"""Small files of a run, whole on the disk or not there."""

from __future__ import annotations

import os
from pathlib import Path

from cache_builder.format.store import fsync_folder


def write_text(path: Path, text: str) -> None:
    """Replace a small file in one rename, so that it is never half there."""
    making = path.with_name(f".{path.name}.partial")
    making.write_text(text)
    fsync_file(making)
    making.replace(path)
    fsync_folder(path.parent)


def fsync_file(path: Path) -> None:
    """Return when the file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
