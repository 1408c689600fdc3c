"""Looks at what may hang: in threads that nobody waits for, with a deadline, shared by all who ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cache_builder.format import KDCacheError, StorageError

LOOK_S = 5.0
"""Seconds that a look may take: what hangs is as good as away."""
FRESH_S = 1.0
"""Seconds for which what a look found is told again: who asks often costs nothing."""
_THREADS = 32

Look = Callable[[], object]
"""Raises what is wrong."""

logger = logging.getLogger("logit_server")


@dataclass
class _Begun:
    began_s: float
    """By the event loop's clock."""
    found: asyncio.Future[KDCacheError | None]
    ended_s: float | None = None


class Looks:
    """Lives on one event loop. Its threads are daemons: a disk that hangs keeps no server from ending."""

    def __init__(self) -> None:
        self._begun: dict[str, _Begun] = {}
        self._waiting: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, _Begun, Look]] = queue.SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()

    async def problem(self, key: str, look: Look, *, afresh: bool = False) -> KDCacheError | None:
        """What a look at ``key``, which may have ended a moment ago, found to be wrong; None for nothing.

        ``afresh``: what another one found a moment ago is not enough.
        """
        loop = asyncio.get_running_loop()
        begun = self._begun.get(key)
        fresh_s = 0 if afresh else FRESH_S
        if begun is None or (begun.ended_s is not None and loop.time() >= begun.ended_s + fresh_s):
            begun = self._begun[key] = _Begun(loop.time(), loop.create_future())
            self._start(loop, begun, look)
        try:
            # Counted from its beginning: who asks while a look hangs is not kept waiting once more. Shielded:
            # one that loses patience leaves the look to the others.
            async with asyncio.timeout_at(begun.began_s + LOOK_S):
                return await asyncio.shield(begun.found)
        except TimeoutError:
            return StorageError(f"it did not answer within {LOOK_S:g} seconds")

    def _start(self, loop: asyncio.AbstractEventLoop, begun: _Begun, look: Look) -> None:
        self._waiting.put((loop, begun, look))
        with self._lock:
            if self._threads >= _THREADS:
                return
            self._threads += 1
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
            found = _problem(look)
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(_end, loop, begun, found)


def _end(loop: asyncio.AbstractEventLoop, begun: _Begun, found: KDCacheError | None) -> None:
    begun.ended_s = loop.time()
    if not begun.found.done():
        begun.found.set_result(found)


def _problem(look: Look) -> KDCacheError | None:
    try:
        look()
    except KDCacheError as error:
        return error
    except OSError as error:
        return StorageError(error.strerror or str(error))
    except Exception:
        logger.exception("a look failed in a way that nobody foresaw")
        return KDCacheError("it could not be looked at")
    return None
