"""In which process the libraries of remote stores work: their threads do not go along when it forks."""

from __future__ import annotations

import os

from cache_builder.format.errors import StorageError

_first_process: int | None = None
"""Where the libraries' threads run. A request from a process that was forked from it might never end."""


def check_process(where: str) -> None:
    """Raise :class:`StorageError` in a process that was forked from one that had a remote store open.

    ``where``: the URL that is asked.
    """
    global _first_process
    _first_process = _first_process or os.getpid()
    if os.getpid() != _first_process:
        raise StorageError(
            f"{where} cannot be reached from here: this process was forked from one that had an object store "
            'open; start it by multiprocessing.get_context("spawn")',
            waiting_helps=False,
        )
