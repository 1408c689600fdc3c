"""Processes that read blocks and make indexes for a worker; see :mod:`logit_server.reader_process`.

Decoding in a thread takes the interpreter from the event loop for milliseconds at a time, so that requests
for what is in memory waited 55 times as long while pages were loaded (2 cores of an AMD EPYC, 2026-11-30).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.codecs import Part
from logit_server.served_caches import ServedCache
from logit_server.storage import read_block

_COMMAND = (sys.executable, "-m", "logit_server.reader_process")
logger = logging.getLogger("logit_server")


class Readers:
    """Up to ``count`` processes, started when they are needed; with none, the calling thread reads itself."""

    def __init__(self, count: int) -> None:
        self._places = threading.Semaphore(count) if count else None
        self._idle: list[_Reader] = []
        self._busy: list[_Reader] = []
        self._is_closed = False

    def read_block(
        self, served: ServedCache, view: int, block: int, part: Part = Part.WHOLE
    ) -> NDArray[np.uint8]:
        """As :func:`storage.read_block`, with the interpreter free meanwhile."""
        found = self._asked(served, (view, block, part.value))
        if found is None:
            return read_block(served, view, block, part)
        return found[0].reshape(len(served.blocks.rows(block)), served.part_bytes(part))

    def read_index(self, served: ServedCache) -> tuple[NDArray[np.uint64], NDArray[np.int64]] | None:
        """The index of the ids of a cache; None where only this process can make it."""
        found = self._asked(served, None)
        return None if found is None else (found[0].view(np.uint64), found[1].view(np.int64))

    def _asked(
        self, served: ServedCache, block: tuple[int, int, str] | None
    ) -> list[NDArray[np.uint8]] | None:
        """What a process answers; None where there is none, or something is wrong."""
        if self._places is None or self._is_closed:
            return None
        wanted: dict[str, Any] = {"location": served.cache.location, "name": served.name}
        wanted |= {"cache_id": served.cache_id, "block": block}
        with self._places:
            try:
                reader = self._idle.pop() if self._idle else _Reader()
                self._busy.append(reader)
                try:
                    head, found = reader.ask(wanted)
                finally:
                    self._busy.remove(reader)
            except (OSError, ValueError) as error:
                # It was killed, or none can be started: slower, but no request fails for it.
                if not self._is_closed:
                    logger.warning("a process that reads pages ended (%s): the worker reads itself", error)
                return None
            self._idle.append(reader)
            if self._is_closed:
                self.close()
        # What is wrong is for the worker itself to find out: it notices then what lies there by now.
        return None if "error" in head else found

    def close(self) -> None:
        """End the processes; threads that wait for them go on."""
        self._is_closed = True
        for reader in list(self._busy):
            reader.kill()
        while self._idle:
            self._idle.pop().end()


class _Reader:
    """One process. It ends when its socket is closed, also where this process is killed."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # no signal of the terminal: it ends with us
            )
        self._lines = self._socket.makefile("rb", buffering=0)

    def ask(self, wanted: dict[str, Any]) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
        """The answer; :class:`OSError` or :class:`ValueError` where the process is no more."""
        try:
            self._socket.sendall(json.dumps(wanted).encode() + b"\n")
            head: dict[str, Any] = json.loads(self._lines.readline())
            return head, [self._received(size) for size in head.get("sizes", ())]
        except BaseException:
            self.end()
            raise

    def _received(self, size: int) -> NDArray[np.uint8]:
        array = np.empty(size, np.uint8)
        missing = memoryview(array)  # type: ignore[arg-type]
        while missing:
            # All at once: each call takes the interpreter again.
            count = self._socket.recv_into(missing, flags=socket.MSG_WAITALL)
            if not count:
                raise ConnectionResetError("its answer ended early")
            missing = missing[count:]
        return array

    def end(self) -> None:
        """End the process and let go of it."""
        self._lines.close()
        self._socket.close()
        self.kill()
        self._process.wait()

    def kill(self) -> None:
        """End the process; who waits for its answer gets an error and calls :meth:`end`."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
