"""How long until the next try, so that many who wait do not return at one instant."""

from __future__ import annotations

import random
import time

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 8.0

# Its own generator: the global one may belong to the student's training, which must be repeatable.
_jitter = random.Random()


class Backoff:
    """Delays that double from try to try, with jitter, until patience is at its end."""

    def __init__(self, patience_s: float) -> None:
        """``patience_s``: from the first failure on."""
        self._patience_s = patience_s
        self._began: float | None = None
        self._delay_s = FIRST_DELAY_S

    @property
    def waited_s(self) -> float:
        """Seconds since the first failure; 0 before it."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    @property
    def is_waiting(self) -> bool:
        """Whether anything failed yet."""
        return self._began is not None

    def failed(self, at_least_s: float = 0.0) -> float | None:
        """Seconds until the next try after a failure; None where patience is at its end.

        ``at_least_s``: what the other side asked for.
        """
        if self._began is None:
            self._began = time.monotonic()
        left_s = self._patience_s - self.waited_s
        if left_s <= 0:
            return None
        delay_s = at_least_s + _jitter.uniform(0.5, 1.0) * self._delay_s
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        return min(delay_s, left_s)
