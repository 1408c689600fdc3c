"""The folder of a run: this user's alone, also where something tidied it up and it is made again."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(folder: Path) -> None:
    """Make a folder unless it is there, for this user alone.

    Temporary folders are tidied up, and then anybody may take the name of one that a server goes on to use.
    Raises :class:`PermissionError` where what has its name is no folder, or is not this user's alone, and
    other :class:`OSError` where it cannot be made.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_own or found.st_mode & _OTHERS:
        raise PermissionError(
            errno.EPERM, "it is not, or not any more, a folder of this user alone: others could change what "
            "is served from it", str(folder),
        )  # fmt: skip
