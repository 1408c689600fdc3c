"""Waiting for a server or a store that is away, without all trainers returning at one instant."""

from __future__ import annotations

import datetime
import email.utils
import logging
import threading

from cache_builder.format.backoff import Backoff
from cache_builder.format.errors import KDCacheError, ServerError

log = logging.getLogger(__name__)


class Patience:
    """How long one request may wait, and how long until the next try."""

    def __init__(
        self,
        location: str,
        patience_s: float,
        closed: threading.Event,
        failure: type[KDCacheError] = ServerError,
    ) -> None:
        """``closed``: set when nobody wants the answer any more; ``failure``: what is raised in the end."""
        self._failure = failure
        self._location = location
        self._patience_s = patience_s
        self._closed = closed
        self._backoff = Backoff(patience_s)

    def wait(self, problem: str, retry_after: str | None = None) -> None:
        """Wait a while because of a problem; raises ``failure`` where patience is at its end."""
        if not self._backoff.is_waiting:
            log.warning("%s: %s; trying again for %.0f s", self._location, problem, self._patience_s)
        delay_s = self._backoff.failed(seconds_until(retry_after))
        if delay_s is None:
            raise self._failure(f"{self._location} did not answer for {self._patience_s:.0f} s: {problem}")
        if self._closed.wait(delay_s):
            raise self._failure(f"{self._location}: the cache was closed while a request waited")

    def over(self) -> None:
        """There is an answer."""
        if self._backoff.is_waiting:
            log.warning("%s answers again after %.0f s", self._location, self._backoff.waited_s)


def seconds_until(retry_after: str | None) -> float:
    """Seconds that a Retry-After header (RFC 9110, 10.2.3) asks for, as a number or a date; 0 without one."""
    given = (retry_after or "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        at = email.utils.parsedate_to_datetime(given)
    except ValueError:
        return 0.0
    now = datetime.datetime.now(datetime.UTC)
    return max(0.0, (at.replace(tzinfo=at.tzinfo or datetime.UTC) - now).total_seconds())
