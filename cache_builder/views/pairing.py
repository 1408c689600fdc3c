"""Who is mixed with whom: a seeded involution of the rows of a view.

The rows are permuted, and places 2k and 2k + 1 are partners. The permutation is a Feistel network over
Z_a x Z_b with a b >= N just so, walked until it lands below N (Black & Rogaway, "Ciphers with arbitrary
finite domains", CT-RSA 2002). It was chosen over a stored permutation because it needs no memory: for
1.28 M rows that would be 10 MB for each view of a tile in each loader process. One row costs some 0.6 ms,
a batch of rows hardly more, all of 1.28 M rows 0.8 s (AMD EPYC, 2026-11-25).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_builder.views.philox import Stream, words

_ROUNDS = 6
"""Each changes both halves. Over 4,000 views of 6 rows the rarest and the commonest of the 15 pairings came
200 and 677 times with two rounds, 170 and 368 with four, 216 and 302 with six, 242 and 292 with twelve; who
is whose partner was uniform from four on."""
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Pairing:
    """The pairs of one view. With odd N one row stays alone."""

    seed: int
    view: int
    samples: int
    """N, rows of the cache."""

    def partners(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The partner of each row; its own number for the one that stays alone."""
        own = np.asarray(rows, np.int64).astype(np.uint64)
        place = self._walk(own, self._forward)
        other = place ^ np.uint64(1)
        alone = other >= self.samples
        found = self._walk(np.where(alone, place, other), self._backward)
        return found.astype(np.int64)

    @cached_property
    def _sides(self) -> tuple[np.uint64, np.uint64]:
        side = math.isqrt(max(self.samples - 1, 0)) + 1
        return np.uint64(side), np.uint64(-(-self.samples // side))

    @cached_property
    def _keys(self) -> Words:
        drawn = words(self.seed, self.view, np.zeros(1, np.int64), 2 * _ROUNDS, Stream.PAIRING)
        return drawn.reshape(_ROUNDS, 2)

    def _walk(self, numbers: Words, step: Callable[[Words], Words]) -> Words:
        found = step(numbers)
        while (outside := found >= self.samples).any():
            found[outside] = step(found[outside])
        return found

    def _forward(self, numbers: Words) -> Words:
        a, b = self._sides
        left, right = np.divmod(numbers, b)
        for first, second in self._keys:
            left = (left + _scrambled(right, first) % a) % a
            right = (right + _scrambled(left, second) % b) % b
        return left * b + right

    def _backward(self, numbers: Words) -> Words:
        a, b = self._sides
        left, right = np.divmod(numbers, b)
        for first, second in self._keys[::-1]:
            right = (right + b - _scrambled(left, second) % b) % b
            left = (left + a - _scrambled(right, first) % a) % a
        return left * b + right


def _scrambled(numbers: Words, key: np.uint64) -> Words:
    """The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014) over ``numbers + key``, modulo 2^64."""
    mixed = numbers + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def pairs_first(partners: NDArray[np.int64], order: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """An order of the positions 0 to n - 1 in which each is followed by its partner, if that is among them.

    ``partners`` [n]: the partner's position; the own one, or one outside 0 to n - 1, for a position without.
    ``order`` [n]: whom a pair's first comes in, by default ascending. A pair stands where its first stood.
    """
    count = len(partners)
    places = np.empty(count, np.int64)
    places[np.arange(count) if order is None else order] = np.arange(count)
    there = (partners >= 0) & (partners < count)
    theirs = np.where(there, places[np.where(there, partners, 0)], places)
    first = np.minimum(places, theirs)
    return np.argsort(2 * first + (places > theirs), kind="stable")
