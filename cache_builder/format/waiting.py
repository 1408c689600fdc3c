"""Waiting for a store that is away: deadlines, tries with pauses between them, and a line that says so."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TypeVar

from cache_builder.format.backoff import Backoff
from cache_builder.format.errors import ConfigError, StorageError

PATIENCE_VARIABLE = "KDCACHE_STORE_PATIENCE_S"
TIMEOUT_VARIABLE = "KDCACHE_STORE_TIMEOUT_S"

_FIRST_CONTACT_S = 15.0
"""A store that never answered is more likely a wrong address than away for a while."""

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class StoreWaiting:
    """How long a remote store is waited for."""

    patience_s: float = 60.0
    """From the first failure of a request to the last try of it."""
    first_contact_s: float = _FIRST_CONTACT_S
    """The same for a store that has not answered yet."""
    timeout_s: float = 30.0
    """How long a request may hear nothing."""


_waiting: ContextVar[StoreWaiting | None] = ContextVar("store_waiting", default=None)


def store_waiting() -> StoreWaiting:
    """What holds here: what :func:`patience_at_most` set, else what the environment says.

    Raises :class:`ConfigError` for a variable that is no number of seconds.
    """
    return _waiting.get() or _of_environment()


@contextmanager
def patience_at_most(patience_s: float) -> Iterator[None]:
    """Give up sooner within this context, for callers who wait themselves, or whose clients do."""
    now = store_waiting()
    shorter = replace(
        now,
        patience_s=min(now.patience_s, patience_s),
        first_contact_s=min(now.first_contact_s, patience_s),
    )
    token = _waiting.set(shorter)
    try:
        yield
    finally:
        _waiting.reset(token)


def _of_environment() -> StoreWaiting:
    waiting = StoreWaiting()
    patience_s, timeout_s = _seconds(PATIENCE_VARIABLE), _seconds(TIMEOUT_VARIABLE)
    if patience_s is not None:
        waiting = replace(waiting, patience_s=patience_s, first_contact_s=patience_s)
    if timeout_s is not None:
        if timeout_s == 0:
            raise ConfigError(f"{TIMEOUT_VARIABLE} is 0: expected a number of seconds above 0")
        waiting = replace(waiting, timeout_s=timeout_s)
    return waiting


def _seconds(variable: str) -> float | None:
    given = os.environ.get(variable)
    if not given:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{variable} is {given!r}: expected a number of seconds such as 60")
    return seconds


class Outages:
    """Which stores do not answer now. One line is logged when that begins and one when it ends.

    Used from the event loop of Zarr alone.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._answered: set[str] = set()

    def has_answered(self, root: str) -> bool:
        """Whether a store ever answered."""
        return root in self._answered

    def began(self, root: str, problem: str, patience_s: float) -> None:
        """A request failed more than once."""
        if root not in self._since:
            self._since[root] = time.monotonic()
            log.warning("%s; trying again for up to %.0f s", problem, patience_s)

    def ended(self, root: str) -> None:
        """A request was answered."""
        self._answered.add(root)
        since = self._since.pop(root, None)
        if since is not None:
            log.warning("%s answers again after %.0f s", root, time.monotonic() - since)


_outages = Outages()


async def patiently(root: str, ask: Callable[[], Awaitable[_T]]) -> _T:
    """What a request gives, made again after a pause where waiting may help.

    ``root``: the URL of the bucket or server, for which outages are counted. Raises what ``ask`` raises.
    """
    waiting = store_waiting()
    patience_s = waiting.patience_s if _outages.has_answered(root) else waiting.first_contact_s
    backoff, tries = Backoff(patience_s), 0
    while True:
        tries += 1
        try:
            answer = await ask()
        except StorageError as error:
            if not error.waiting_helps:
                raise
            delay_s = backoff.failed()
            if delay_s is None:
                raise _given_up(error, tries, backoff.waited_s) from error
            if tries > 1:  # one failure alone is nothing to talk about
                _outages.began(root, str(error), patience_s)
        except (FileNotFoundError, FileExistsError):
            _outages.ended(root)
            raise
        else:
            _outages.ended(root)
            return answer
        await asyncio.sleep(delay_s)


def _given_up(error: StorageError, tries: int, waited_s: float) -> StorageError:
    if tries == 1:
        return error
    return StorageError(f"{error}; tried {tries} times in {waited_s:.0f} s", waiting_helps=True)
