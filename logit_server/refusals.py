"""Requests that are refused: counted by reason, and logged, as long as there are not too many of them."""

from __future__ import annotations

import logging
import time
from collections import Counter

from logit_server.board import UNMATCHED, Board
from logit_server.counters import Counters
from logit_server.errors import status_of
from logit_server.log import tell
from logit_server.refusal_reasons import reason_of

MOST_LINES = 10
"""Refusals of one reason that are logged in a second; of more, only their number is."""


class Refusals:
    """Of one worker. Lives on its event loop."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters or Counters(Board(()))
        self._second = 0
        self._seen: Counter[str] = Counter()

    def of(self, error: Exception, request_id: str, peer: str) -> None:
        """Note a request that an error refuses; errors that answer what was asked are none."""
        reason = reason_of(error)
        if reason is not None:
            self.note(reason, str(error), peer, status=status_of(error), request_id=request_id)

    def before_routes(self, error: Exception, request_id: str, peer: str) -> None:
        """As :meth:`of`, of a request that the application did not get to see."""
        self._counters.add(("requests", UNMATCHED, str(status_of(error))))
        self.of(error, request_id, peer)

    def note(self, reason: str, message: str, peer: str, **fields: object) -> None:
        """Note a refusal. ``peer``: the address that was refused."""
        self._counters.add(("refused", reason))
        self.sum_up()
        self._seen[reason] += 1
        if self._seen[reason] <= MOST_LINES:
            tell(
                logging.INFO, "refused", "refused %s (%s): %s", peer, reason, message,
                reason=reason, peer=peer, **fields,
            )  # fmt: skip

    def sum_up(self, *, is_end: bool = False) -> None:
        """Say how many refusals of a second were not logged one by one, when it is over."""
        second = int(time.monotonic())
        if second == self._second and not is_end:
            return
        for reason, count in self._seen.items():
            if count > MOST_LINES:
                more = count - MOST_LINES
                tell(
                    logging.WARNING, "refused_more", "refused %d more within a second (%s)", more, reason,
                    reason=reason, count=more,
                )  # fmt: skip
        self._second = second
        self._seen.clear()
