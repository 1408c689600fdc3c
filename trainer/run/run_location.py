"""Where a run lies, as the user names it, and where its files are at hand in this process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cache_builder.format.errors import ConfigError
from cache_builder.format.locations import is_remote, local_output

_PREFIX, _LOCK = "kdtrain-", ".lock"


def run_location(given: object, flag: str = "--out") -> object:
    """``--out`` as text: a local path, or the URL of a folder on an object store.

    Raises :class:`ConfigError` for a URL that names a whole bucket, and for what is no place to write to.
    """
    if not isinstance(given, str | os.PathLike):
        return given
    text = os.fsdecode(given)
    if not is_remote(text):
        return str(local_output(text, flag))
    url = text.rstrip("/")
    if not url.partition("://")[2].partition("/")[2]:
        raise ConfigError(f"{flag} {text} is a whole bucket: name a folder in it, as in {url}/run")
    return url


def run_path(out: str) -> Path:
    """Where the files of a run are at hand: ``out`` itself, or this process's folder for a URL."""
    if not is_remote(out):
        return Path(out)
    if out not in _SCRATCH:
        _SCRATCH[out] = _Scratch.make()
    return _SCRATCH[out].folder


def leave(out: str, *, keep: bool) -> None:
    """End the use of this process's folder for a URL, which goes unless ``keep``."""
    scratch = _SCRATCH.pop(out, None)
    if scratch is not None:
        scratch.leave(keep=keep)


@dataclass(frozen=True)
class _Scratch:
    """A temporary folder that is locked as long as its process lives, so that others see when that died."""

    folder: Path
    lock: IO[bytes]

    @classmethod
    def make(cls) -> _Scratch:
        _sweep()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = (folder / _LOCK).open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(folder, lock)

    def leave(self, *, keep: bool) -> None:
        """A folder without the file of its lock stays until the user removes it."""
        (self.folder / _LOCK).unlink(missing_ok=True)
        self.lock.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


_SCRATCH: dict[str, _Scratch] = {}
"""Of each run that is open in this process, by its URL."""


def _sweep() -> None:
    """Remove what killed processes of this user left."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.parent.stat().st_uid == os.geteuid():
                shutil.rmtree(lock.parent, ignore_errors=True)
