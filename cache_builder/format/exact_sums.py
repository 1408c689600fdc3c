"""Sums that come number by number and are rounded once, so that the order of the numbers does not matter."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable


class ExactSums:
    """Several sums, each as if :func:`math.fsum` had all its numbers at once; few are held of each."""

    def __init__(self) -> None:
        self._partials: defaultdict[int, list[float]] = defaultdict(list)

    def add(self, values: Iterable[float], first: int = 0) -> None:
        """Add a number to each of the sums from number ``first`` on."""
        for place, value in enumerate(values, start=first):
            _add(self._partials[place], value)

    def value(self, place: int) -> float:
        """A sum so far, rounded to the nearest float."""
        return math.fsum(self._partials[place])


def _add(partials: list[float], value: float) -> None:
    """Add to numbers whose sum is exact (Shewchuk, "Adaptive precision floating-point arithmetic", 1997)."""
    kept = 0
    for partial in partials:
        larger, smaller = (value, partial) if abs(value) >= abs(partial) else (partial, value)
        value = larger + smaller
        if math.isinf(value):
            raise OverflowError("a sum is larger than any number that floats can be")
        rest = smaller - (value - larger)
        if rest:
            partials[kept] = rest
            kept += 1
    partials[kept:] = [value]
