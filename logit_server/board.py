"""The numbers that the processes of a run count, in memory that all of them share.

Each process writes a row of its own, and whoever is asked adds the rows up: the figures are those of the
whole server whichever worker answers, and they stay when a worker dies. What is counted is a fixed list of
keys, so that no client can make it longer. prometheus_client's own files for several processes take 21 µs of
a request, and :class:`Counters` takes .5 (2 cores, 2026-12-01).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ctypes import c_double
from http import HTTPStatus
from multiprocessing.sharedctypes import RawArray

import numpy as np
from numpy.typing import NDArray

from logit_server.refusal_reasons import REASONS
from logit_server.supervision import CAUSES

Key = tuple[str, ...]

UNMATCHED = "unmatched"
"""The route of requests that no route answers, and of those that are refused before they have one."""
STATUSES = (*(str(int(status)) for status in HTTPStatus if status >= 200), "other")
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the classes of durations, in seconds; there is one more without."""
FAILURES = ("corrupt", "replaced", "storage", "other")
"""Why a block could not be loaded."""

ROWS, ABANDONED = ("rows",), ("abandoned",)
LOADS, LOAD_SECONDS, LOADED_BYTES = ("loads",), ("load_seconds",), ("loaded_bytes",)
EVICTIONS, EVICTED_BYTES = ("evictions",), ("evicted_bytes",)
IN_FLIGHT, CONNECTIONS = ("in_flight",), ("connections",)
GAUGES = (IN_FLIGHT, CONNECTIONS)
"""What goes up and down, and ends with its process."""


class Board:
    """Rows of numbers by key. It is pickled to spawned processes, and goes on sharing its memory there."""

    def __init__(self, routes: Iterable[str], processes: int = 1) -> None:
        self.routes = (*sorted(set(routes) - {UNMATCHED}), UNMATCHED)
        self.processes = processes
        self._index = {key: at for at, key in enumerate(_keys(self.routes))}
        self._cells = RawArray(c_double, processes * len(self._index))

    def index(self, key: Key) -> int:
        """Where the number of a key is in a row."""
        return self._index[key]

    def row(self, process: int) -> NDArray[np.float64]:
        """The numbers of a process, to write to."""
        row: NDArray[np.float64] = self._rows()[process]
        return row

    def totals(self) -> Mapping[Key, float]:
        """The numbers of all processes together."""
        return dict(zip(self._index, self._rows().sum(axis=0).tolist(), strict=True))

    def end(self, process: int, cause: str) -> None:
        """Count the end of a worker, one of ``CAUSES``, and forget what ended with it."""
        row = self.row(process)
        row[self.index(("restarts", cause))] += 1
        row[[self.index(key) for key in GAUGES]] = 0

    def _rows(self) -> NDArray[np.float64]:
        return np.frombuffer(memoryview(self._cells), np.float64).reshape(self.processes, -1)


def _keys(routes: Iterable[str]) -> list[Key]:
    keys: list[Key] = []
    for route in routes:
        keys += [("requests", route, status) for status in STATUSES]
        keys += [("durations", route, str(at)) for at in range(len(BOUNDS_S) + 1)]
        keys += [("seconds", route), ("bytes", route)]
    keys += [("refused", reason) for reason in REASONS]
    keys += [("failures", failure) for failure in FAILURES]
    keys += [("restarts", cause) for cause in CAUSES]
    return [*keys, ROWS, ABANDONED, LOADS, LOAD_SECONDS, LOADED_BYTES, EVICTIONS, EVICTED_BYTES, *GAUGES]
