"""Files and folders that are there wholly or not at all, also after a power cut: write, fsync, rename."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path


def write_file(path: Path, data: bytes, making: Path | None = None) -> None:
    """Write a file, or replace it, in one step.

    ``making``: where it is written first, by default a name that no other process has. Raises
    :class:`FileNotFoundError` where the folder is not there (any more).
    """
    making = making or path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with making.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        making.replace(path)
    except OSError:
        with suppress(OSError):
            making.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def take_name(making: Path, final: Path) -> None:
    """Give a file or folder whose content is on the disk its name, and force the name to the disk.

    A file that has the name is replaced; a folder that has it must be empty.
    """
    making.replace(final)
    fsync_folder(final.parent)


def fsync_file(path: Path) -> None:
    """Force a file's content to the disk."""
    _fsync(path, os.O_RDONLY)


def fsync_folder(folder: Path) -> None:
    """Force the entries of a folder to the disk."""
    _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
