"""How every worker of a run hears that the list of caches is to be read again: a file that grows."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from logit_server.private_folder import make_private

_NAME = "reloads"


class Wishes:
    """Counted in the size of a file in the page folder, which needs no lock: not even in a signal handler."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME

    def add(self) -> None:
        """Wish that every worker reads the list again."""
        with contextlib.suppress(OSError):  # where there can be no folder, nothing can be served anyway
            make_private(self._path.parent)  # as a page's load does: see PageFolder.open
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, b".")
            finally:
                os.close(descriptor)

    def count(self) -> int:
        """How many there were in this run."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def wish_on_hangup(folder: Path) -> None:
    """Read the list again at SIGHUP, in the whole run, for as long as this process lives.

    A server does not end when its terminal closes, whether or not `nohup` started it: SIGINT and SIGTERM end
    it. Does nothing in a thread, where signals are the program's own.
    """
    if threading.current_thread() is threading.main_thread():
        wishes = Wishes(folder)
        signal.signal(signal.SIGHUP, lambda *_: wishes.add())


@contextlib.contextmanager
def wishing_on_hangup(folder: Path) -> Iterator[None]:
    """As :func:`wish_on_hangup`, for as long as the context lasts."""
    before = signal.getsignal(signal.SIGHUP)
    wish_on_hangup(folder)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, before)
