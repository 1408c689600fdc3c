"""Small integers as the digits of bytes: several in a byte where they take few values, one or two bytes else.

A record in memory and on the wire has fixed fields, and most coefficients of a coarse sketch take three
values: five of them fill a byte. The store keeps less still: it codes the integers (``entropy.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTE, WIDE = 256, 65535
"""A digit takes at most ``BYTE - 1`` values, or it is ``WIDE`` and has two bytes of its own."""


def is_radix(m: int) -> bool:
    """Whether an integer may take so many values."""
    return m == WIDE or (m % 2 == 1 and 3 <= m < BYTE)


@dataclass(frozen=True)
class Digits:
    """How integers around 0 are packed, by the number of values that each may take.

    Greedy, from the first to the last: an integer of m values, which is -(m - 1) / 2 to (m - 1) / 2, joins
    the byte before it where the product of the values of that byte, times m, is at most 256. The first digit
    of a byte is the least significant one. One of 65,535 values takes two bytes, the lower one first.
    """

    values: tuple[int, ...]
    """m of each integer: odd, 3 to 255, or 65,535."""

    @classmethod
    def of_runs(cls, runs: Iterable[tuple[int, int]]) -> Digits:
        """From (how many, m) pairs, as a manifest states them."""
        return cls(tuple(m for count, m in runs for _ in range(count)))

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """The byte of each integer, its weight there, and the number of bytes."""
        place: list[int] = []
        weight: list[int] = []
        end, product = 0, BYTE
        for m in self.values:
            if product * m > BYTE:
                end, product = end + 1, 1
            place.append(end - 1)
            weight.append(product)
            product *= m
            if m == WIDE:
                end += 1
        return np.array(place, np.int64), np.array(weight, np.int64), end

    @property
    def place(self) -> NDArray[np.int64]:
        """The byte [r] that holds each integer; the lower one of two."""
        return self._places[0]

    @property
    def weight(self) -> NDArray[np.int64]:
        """What one of each integer [r] adds to its byte."""
        return self._places[1]

    @property
    def bytes(self) -> int:
        """Bytes of a packed row."""
        return self._places[2]

    @cached_property
    def first(self) -> NDArray[np.intp]:
        """The integers that begin a byte."""
        return np.flatnonzero(self.weight == 1)

    @cached_property
    def limit(self) -> NDArray[np.int64]:
        """The largest absolute value of each integer [r]."""
        return (np.array(self.values, np.int64) - 1) // 2

    @cached_property
    def wide(self) -> NDArray[np.intp]:
        """Which integers have two bytes."""
        return np.flatnonzero(np.array(self.values) == WIDE)

    def pack(self, integers: NDArray[np.number[Any]]) -> NDArray[np.uint8]:
        """Integers [n, r], cut off at their limits, to bytes [n, bytes]."""
        digits = np.clip(integers, -self.limit, self.limit).astype(np.int64) + self.limit
        sums = np.add.reduceat(digits * self.weight, self.first, axis=1)
        packed = np.zeros((len(digits), self.bytes), np.uint8)
        packed[:, self.place[self.first]] = sums & (BYTE - 1)
        packed[:, self.place[self.wide] + 1] = digits[:, self.wide] >> 8
        return packed

    def unpack(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The inverse: bytes [n, bytes] to integers [n, r]."""
        return self._unpacked(packed, slice(None))

    def unpack_first(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The first integer of each row alone [n], in a small part of the time that all of them take."""
        return self._unpacked(packed, slice(1))[:, 0]

    def _unpacked(self, packed: NDArray[np.uint8], which: slice) -> NDArray[np.int64]:
        place, weight, values, is_wide = (
            part[which] for part in (self.place, self._weight_32, self._values_32, self._is_wide)
        )
        # Divisions of 32 bits take half the time of those of 64.
        whole = packed[:, place].astype(np.uint32)
        whole[:, is_wide] += packed[:, place[is_wide] + 1].astype(np.uint32) << 8
        return (whole // weight % values).astype(np.int64) - self.limit[which]

    @cached_property
    def _weight_32(self) -> NDArray[np.uint32]:
        return self.weight.astype(np.uint32)

    @cached_property
    def _values_32(self) -> NDArray[np.uint32]:
        return np.array(self.values, np.uint32)

    @cached_property
    def _is_wide(self) -> NDArray[np.bool_]:
        return np.asarray(self._values_32 == WIDE)
