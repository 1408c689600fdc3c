"""All connections of a worker: how many there may be, how long each may take, what they hold in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Protocol

from logit_server.background import meanwhile
from logit_server.errors import OverloadedError
from logit_server.refusal_reasons import SLOW_READER
from logit_server.refusals import Refusals
from logit_server.settings import Settings

CONNECTIONS_KEY = "kdcache.connections"
"""Where the lifespan's state has the :class:`Connections` for uvicorn's protocol to find."""

logger = logging.getLogger("logit_server")


class Connection(Protocol):
    """What is asked of a connection."""

    @property
    def peer(self) -> str:
        """The address of the client."""

    def check_time(self, now: float) -> None:
        """End the connection if its client is late at ``now``, in seconds of the event loop's clock."""

    def give_way(self) -> None:
        """Close the connection, which waits for a request, because another one needs its place."""

    def abort(self) -> None:
        """Close the connection at once, and forget what has not been sent."""


class Connections:
    """Lives on one event loop."""

    def __init__(self, settings: Settings, refusals: Refusals | None = None) -> None:
        self.settings = settings
        self.refusals = refusals or Refusals()
        self._open: set[Connection] = set()
        # Both in the order of time: who has waited longest is first.
        self._waiting: dict[Connection, None] = {}
        self._unread: dict[Connection, int] = {}
        self._unread_bytes = 0
        self._body_bytes = 0
        self.is_draining = False
        """Whether the worker is stopping."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> bool:
        """Count a new connection; False where the worker is full, so that only its health is told.

        A connection that waits for a request gives way, so a worker is full when all are in work.
        """
        if len(self._open) >= self.settings.max_connections and self._waiting:
            oldest = next(iter(self._waiting))
            self.remove(oldest)
            oldest.give_way()
        self._open.add(connection)
        self._waiting[connection] = None
        return len(self._open) <= self.settings.max_connections

    def remove(self, connection: Connection) -> None:
        """Count a connection no longer."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self.was_read(connection)

    def waits(self, connection: Connection) -> None:
        """Note that a connection waits for its client's next request."""
        self._waiting[connection] = None

    def works(self, connection: Connection) -> None:
        """Note that a connection has a request to answer."""
        self._waiting.pop(connection, None)

    def is_unread(self, connection: Connection, size: int) -> None:
        """Note that a client leaves ``size`` bytes unread; beyond the budget the longest wait ends."""
        self._unread[connection] = size
        self._unread_bytes += size
        while self._unread_bytes > self.settings.max_unread_bytes:
            longest = next(iter(self._unread))
            self.was_read(longest)
            self.refusals.note(SLOW_READER, "too much is held for clients that do not read", longest.peer)
            longest.abort()

    def was_read(self, connection: Connection) -> None:
        """Note that a client takes what it is sent."""
        self._unread_bytes -= self._unread.pop(connection, 0)

    def problem(self) -> OverloadedError | None:
        """What is wrong where the next connection would find no place."""
        if len(self._open) <= self.settings.max_connections or self._waiting:
            return None
        return OverloadedError(
            f"all {self.settings.max_connections} connections of this worker are in work: open fewer, or "
            "raise max_connections",
            "connections",
        )

    def hold(self, size: int) -> None:
        """Count ``size`` bytes of request bodies, until :meth:`release`.

        Raises :class:`OverloadedError` where the bodies of all connections are over the budget.
        """
        self._body_bytes += size
        if self._body_bytes > self.settings.max_bodies_bytes:
            raise OverloadedError(
                f"the bodies of all requests have more than {int(self.settings.max_bodies_bytes):,} bytes, "
                "the limit of this worker; try again in a second",
                "bodies",
            )

    def release(self, size: int) -> None:
        """Count ``size`` bytes of bodies no longer."""
        self._body_bytes -= size

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look after the deadlines of all connections for as long as the context lasts."""
        async with meanwhile(self._watch()):
            yield

    async def _watch(self) -> None:
        limits = self.settings
        pause_s = min(1.0, min(limits.header_s, limits.body_s, limits.read_s, limits.keep_alive_s) / 4)
        while True:
            await asyncio.sleep(pause_s)
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                try:
                    connection.check_time(now)
                except Exception:
                    # A connection that cannot be looked at must not end the watch over all others.
                    logger.exception("the deadlines of a connection could not be checked: it is closed")
                    connection.abort()
