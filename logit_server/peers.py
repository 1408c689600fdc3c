"""How many requests each client has in work at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from starlette.types import Scope

from logit_server.errors import BusyPeerError


class Peers:
    """Counts the requests of each address."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_work: Counter[str] = Counter()

    def enter(self, scope: Scope) -> None:
        """Count a request, which :meth:`leave` ends; it may be over the limit (see :meth:`check_room`)."""
        self._in_work[peer_of(scope)] += 1

    def leave(self, scope: Scope) -> None:
        """Count a request no longer."""
        peer = peer_of(scope)
        self._in_work[peer] -= 1
        if not self._in_work[peer]:
            del self._in_work[peer]

    def check_room(self, scope: Scope) -> None:
        """Raise :class:`BusyPeerError` where a client has more requests in work than the limit allows."""
        count = self._in_work[peer_of(scope)]
        if count > self._limit:
            raise BusyPeerError(
                f"{count} requests at once from your address, the limit of this worker is {self._limit}; "
                "try again in a second"
            )


def peer_of(scope: Scope) -> str:
    """The address at the other end of a request's connection."""
    client: Any = scope.get("client")
    return client[0] if client else "unknown"
