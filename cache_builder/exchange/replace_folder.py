"""Putting a finished folder in the place of another one, so that there is never none."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from cache_builder.format.durable import fsync_folder, take_name
from cache_builder.format.owned import remove, removed

_AT_FDCWD = -100
_EXCHANGE = 2


def replace_folder(new: Path, old: Path) -> Path | None:
    """``new`` takes the name of ``old``, a cache that is removed. Both lie in one folder.

    Gives the folder that stays, if somebody put anything into it that is none of a cache.

    Where the file system can, both names change hands in one step. Else there is a moment with the old
    content under :func:`aside` alone; a process that dies then leaves it to :func:`recover`.
    """
    if _exchanged(new, old):
        fsync_folder(old.parent)
        return new if removed(new) else None
    old.rename(aside(old))
    take_name(new, old)
    return aside(old) if removed(aside(old)) else None


def aside(old: Path) -> Path:
    """Where the old content waits until the new one has its name."""
    return old.with_name(f".{old.name}.before")


def recover(old: Path) -> None:
    """Undo what a replacement that died half-way left: the old content gets its name back."""
    waiting = aside(old)
    if not waiting.exists():
        return
    if old.exists():  # it died while it removed the old content
        remove(waiting)
    else:
        take_name(waiting, old)


def _exchanged(new: Path, old: Path) -> bool:
    """Linux's renameat2 with RENAME_EXCHANGE; False where it does not exist or the file system refuses."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(new), os.fsencode(old)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0)
