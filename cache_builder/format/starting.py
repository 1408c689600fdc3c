"""How loader and worker processes are started beside open stores."""

from __future__ import annotations

import threading

_remote_is_open = threading.Event()


def note_remote() -> None:
    """A remote store was opened in this process: its library has threads and sockets from now on."""
    _remote_is_open.set()


def start_method(workers: int) -> str | None:
    """How so many processes are started: ``spawn`` beside remote stores, None = as the platform does.

    A fork copies locks that threads of the store's library may hold at this instant, and sockets on which
    two processes would then talk at once.
    """
    return "spawn" if workers and _remote_is_open.is_set() else None
