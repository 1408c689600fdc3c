"""Files and folders that are there wholly or not at all, also after a power cut: write, fsync, rename."""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links answer."""


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


def create_file(path: Path, data: bytes, *, durable: bool = False) -> bool:
    """Make a file that is whole from the first moment, where none has the name; whether there was none.

    By a hard link, of which one of several succeeds also where NFS lies between them. ``durable``: it also
    survives a power cut. Raises :class:`FileNotFoundError` where the folder is not there.
    """
    making = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        making.write_bytes(data)
        if durable:
            fsync_file(making)
        made = _linked(making, path, data)
        if made and durable:
            fsync_file(path)
            fsync_folder(path.parent)
        return made
    finally:
        with suppress(OSError):
            making.unlink(missing_ok=True)


def _linked(making: Path, path: Path, data: bytes) -> bool:
    try:
        path.hardlink_to(making)
    except FileExistsError:
        # An answer of NFS that was lost: the link was made, and made again.
        return making.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _opened_new(path, data)
    return True


def _opened_new(path: Path, data: bytes) -> bool:
    """As a link does, but that a reader may meet the file before it is whole."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return True


def overwrite_file(path: Path, data: bytes) -> None:
    """Write other bytes of the same length into a file that is there.

    Raises :class:`FileNotFoundError` where it is not: what was taken away is not made again.
    """
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


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
