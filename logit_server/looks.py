"""Looks at what may hang: in threads that nobody waits for, with a deadline, shared by all who ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from cache_builder.format import KDCacheError, StorageError

LOOK_S = 5.0
"""Seconds that a look may take: what hangs is as good as away."""
FRESH_S = 1.0
"""Seconds for which what a look found is answered again: who asks often costs nothing."""
_THREADS = 32
"""Threads that look at once, beside those of looks that did not end in time."""

Look = Callable[[], object]
"""Raises what is wrong."""
Found = tuple[Any, KDCacheError | None]
"""What a look gave, or what it raised."""

logger = logging.getLogger("logit_server")


@dataclass
class _Begun:
    began_s: float
    """By the event loop's clock."""
    found: asyncio.Future[Found]
    ended_s: float | None = None
    has_thread: bool = False
    """Whether the look takes one of the threads that look at once."""


class Looks:
    """Lives on one event loop. Its threads are daemons: a disk that hangs keeps no server from ending."""

    def __init__(self) -> None:
        self._begun: dict[Hashable, _Begun] = {}
        self._waiting: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, _Begun, Look]] = queue.SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()

    async def problem(self, key: Hashable, look: Look, *, afresh: bool = False) -> KDCacheError | None:
        """What a look at ``key``, which may have ended a moment ago, found to be wrong; None for nothing.

        ``afresh``: what another one found a moment ago is not enough.
        """
        _, error = await self._look(key, look, 0 if afresh else FRESH_S, LOOK_S)
        return error

    async def result(self, key: Hashable, look: Look, limit_s: float) -> Any:
        """What a look gives that begins now, or goes on already; raises what it found to be wrong.

        ``limit_s``: how many seconds it may take, in place of ``LOOK_S``.
        """
        value, error = await self._look(key, look, 0, limit_s)
        if error is not None:
            raise error
        return value

    async def _look(self, key: Hashable, look: Look, fresh_s: float, limit_s: float) -> Found:
        loop = asyncio.get_running_loop()
        begun = self._begun.get(key)
        if begun is None or (begun.ended_s is not None and loop.time() >= begun.ended_s + fresh_s):
            begun = self._begun[key] = _Begun(loop.time(), loop.create_future())
            self._start(loop, begun, look)
        try:
            # Counted from its beginning: who asks while a look hangs is not kept waiting once more. Shielded:
            # one that loses patience leaves the look to the others.
            async with asyncio.timeout_at(begun.began_s + limit_s):
                return await asyncio.shield(begun.found)
        except TimeoutError:
            self._give_up(begun)
            return None, StorageError(f"it did not answer within {limit_s:g} seconds")

    def forget(self, key: Hashable) -> None:
        """Keep nothing of what is not looked at any more."""
        self._begun.pop(key, None)

    def _give_up(self, begun: _Begun) -> None:
        """Let another thread do what the one of a look that hangs would: other places are looked at on."""
        with self._lock:
            if not begun.has_thread:
                return
            begun.has_thread = False
            if self._waiting.empty():
                self._threads -= 1
                return
        self._begin_thread()

    def _start(self, loop: asyncio.AbstractEventLoop, begun: _Begun, look: Look) -> None:
        self._waiting.put((loop, begun, look))
        with self._lock:
            if self._threads >= _THREADS:
                return
            self._threads += 1
        self._begin_thread()

    def _begin_thread(self) -> None:
        threading.Thread(target=self._work, name="look", daemon=True).start()

    def _work(self) -> None:
        """Look until nothing waits."""
        while True:
            try:
                loop, begun, look = self._waiting.get_nowait()
            except queue.Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._threads -= 1
                        return
                continue
            begun.has_thread = True
            found = _found(look)
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(_end, loop, begun, found)
            with self._lock:
                if not begun.has_thread:  # another thread goes on in its place
                    return
                begun.has_thread = False


def _end(loop: asyncio.AbstractEventLoop, begun: _Begun, found: Found) -> None:
    begun.ended_s = loop.time()
    if not begun.found.done():
        begun.found.set_result(found)


def _found(look: Look) -> Found:
    try:
        return look(), None
    except KDCacheError as error:
        return None, error
    except OSError as error:
        return None, StorageError(error.strerror or str(error))
    except Exception:
        logger.exception("a look failed in a way that nobody foresaw")
        return None, KDCacheError("it could not be looked at")
