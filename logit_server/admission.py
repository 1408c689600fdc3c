"""How many requests a worker has in work at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from logit_server.errors import OverloadedError

HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
"""What is answered however full the server is, and without a token."""
METRICS_PATH = "/metrics"
ALWAYS_ANSWERED = (*HEALTH_PATHS, METRICS_PATH)
"""What is answered however full the server is."""


class Admission:
    """Counts the requests in work. A request that waits for its client's body is not in work."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_work = 0

    @property
    def in_work(self) -> int:
        """How many requests are in work."""
        return self._in_work

    def enter(self) -> None:
        """Count a request, which :meth:`leave` ends; it may be over the limit (see :meth:`check_room`)."""
        self._in_work += 1

    def leave(self) -> None:
        """Count a request no longer."""
        self._in_work -= 1

    def check_room(self) -> None:
        """Raise :class:`OverloadedError` where more requests are in work than the limit allows."""
        if self._in_work > self._limit:
            raise OverloadedError(
                f"{self._in_work} requests at once, the limit of this worker is {self._limit}; "
                "try again in a second"
            )

    @contextlib.contextmanager
    def waiting_for_client(self) -> Iterator[None]:
        """Give up the place of a request while its body comes: a slow client takes nobody's place.

        Raises :class:`OverloadedError` at the end where the place was taken meanwhile.
        """
        self.leave()
        try:
            yield
        finally:
            self.enter()
        self.check_room()
