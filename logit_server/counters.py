"""What one process counts: its row of the board."""

from __future__ import annotations

import threading
from bisect import bisect_left
from http import HTTPStatus

from logit_server.board import BOUNDS_S, UNMATCHED, Board, Key


class _Requests:
    """Requests of one route with one status since they were last published."""

    __slots__ = ("bytes", "classes", "count", "seconds")

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self.seconds = 0.0
        self.classes = [0] * (len(BOUNDS_S) + 1)


class Counters:
    """Requests are counted in plain numbers, a microsecond each, and published some times a second.

    Everything else is rare and goes to the board at once, from any thread.
    """

    def __init__(self, board: Board, process: int = 0) -> None:
        self.board = board
        self._row = board.row(process)
        self._requests: dict[tuple[str, int], _Requests] = {}
        self._lock = threading.Lock()

    def note(self, route: str, status: int, seconds: float, size: int) -> None:
        """Count a request that was answered with ``size`` bytes of body."""
        found = self._requests.get((route, status))
        if found is None:
            found = self._requests[route, status] = _Requests()
        found.count += 1
        found.bytes += size
        found.seconds += seconds
        found.classes[bisect_left(BOUNDS_S, seconds)] += 1

    def add(self, key: Key, value: float = 1) -> None:
        """Count something rare."""
        with self._lock:
            self._row[self.board.index(key)] += value

    def put(self, key: Key, value: float) -> None:
        """Say how much there is of something just now."""
        self._row[self.board.index(key)] = value

    def publish(self) -> None:
        """Put what was counted of requests on the board."""
        requests, self._requests = self._requests, {}
        for (route, status), found in requests.items():
            known = route if route in self.board.routes else UNMATCHED
            self.add(("requests", known, _label(status)), found.count)
            self.add(("seconds", known), found.seconds)
            self.add(("bytes", known), found.bytes)
            for at, count in enumerate(found.classes):
                if count:
                    self.add(("durations", known, str(at)), count)


def _label(status: int) -> str:
    return str(status) if status in _KNOWN else "other"


_KNOWN = frozenset(int(status) for status in HTTPStatus if status >= 200)
