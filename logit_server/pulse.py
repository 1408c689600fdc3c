"""The sign of life of a worker, in memory that it shares with its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from ctypes import Array, c_uint64
from multiprocessing.context import BaseContext
from multiprocessing.sharedctypes import RawArray

from logit_server.background import meanwhile

BEAT_S = 0.5
"""Seconds between two beats."""


class Pulse:
    """Of one worker. It is pickled to the worker's process, and goes on sharing its memory there."""

    def __init__(self, slot: int, parent: int, cells: Array[c_uint64]) -> None:
        """``slot``: which worker, from 0; ``parent``: the process id of the supervisor."""
        self.slot = slot
        self.parent = parent
        self._cells = cells

    @property
    def beats(self) -> int:
        """How often the worker gave a sign of life."""
        return self._cells[2 * self.slot]

    @property
    def is_ready(self) -> bool:
        """Whether the worker's application has started."""
        return bool(self._cells[2 * self.slot + 1])

    @is_ready.setter
    def is_ready(self, is_so: bool) -> None:
        self._cells[2 * self.slot + 1] = is_so

    def reset(self) -> None:
        """Begin anew, for another process."""
        self._cells[2 * self.slot] = 0
        self.is_ready = False

    def beat(self) -> None:
        """Give a sign of life."""
        self._cells[2 * self.slot] += 1

    def beat_until_ready(self) -> None:
        """Beat while the worker starts: opening many caches may take minutes."""
        while not self.is_ready:
            self.beat()
            time.sleep(BEAT_S)

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beat on the event loop for as long as the context lasts, which says that the loop turns."""
        self.is_ready = True
        async with meanwhile(self._beat_for_ever()):
            yield

    async def _beat_for_ever(self) -> None:
        while True:
            self.beat()
            if os.getppid() != self.parent:
                # Nobody would replace this process, and it would keep the port.
                os.kill(os.getpid(), signal.SIGTERM)
                return
            await asyncio.sleep(BEAT_S)


def pulses(context: BaseContext, workers: int) -> list[Pulse]:
    """The pulses of some workers of this process."""
    cells = RawArray(c_uint64, 2 * workers)
    return [Pulse(slot, os.getpid(), cells) for slot in range(workers)]
