"""An entropy coder of small integers: interleaved rANS over the rows of a block, in NumPy alone.

Asymmetric numeral systems (Duda, 1311.2540), many states side by side (Giesen, 1402.3392). The model is
static: a table of frequencies for each integer of a row, which the store keeps once, so that a block pays for
no table of its own. The general compressors that Zarr has pay at least a bit for every symbol and a table for
every block: 32.9 instead of 24.6 bytes for the coefficients of an ImageNet teacher (2026-11-30, blocks of
2,416 rows; ``benchmarks/entropy.py``). FORMAT.md states the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import FormatError

SCALE_BITS = 14
"""The frequencies of a table add up to 2**14."""
REACH = 31
"""A table has a place for each of -31 to 31, and the last one for everything beyond them."""
PLACES = 2 * REACH + 2
ESCAPE = PLACES - 1
_ESCAPE_BYTES = 3
ROWS_PER_LANE = 16
"""Rows that share a state."""
STATE_BYTES = 3.0
"""What a state takes of a block, beside what its integers take."""
_WORD_BITS = 16
_LOWEST = 1 << _WORD_BITS
_MASK = (1 << SCALE_BITS) - 1

Integers = NDArray[np.int64]
States = NDArray[np.uint64]


@dataclass(frozen=True)
class EntropyCoder:
    """Codes blocks of integers [n, s], every column by a table of its own."""

    tables: NDArray[np.uint16]
    """[s, PLACES]: how often each ``integer >> low`` is expected, of 2**14; the last is the escape."""
    low: NDArray[np.uint8]
    """[s]: this many lower bits of an integer are stored as they are, because all are equally frequent."""

    @cached_property
    def _starts(self) -> NDArray[np.uint64]:
        """[s, PLACES + 1]: where the part of each value begins."""
        sums = np.cumsum(self.tables.astype(np.uint64), axis=1)
        return np.concatenate([np.zeros((len(sums), 1), np.uint64), sums], axis=1)

    def encode(self, integers: NDArray[np.integer[Any]]) -> bytes:
        """Integers [n, s] of 24 bits to the bytes of a block."""
        rows = len(integers)
        states = np.full(lane_count(rows), _LOWEST, np.uint64)
        words: list[NDArray[np.uint64]] = []
        for part in reversed(list(_rounds(rows))):
            lanes = states[: part.stop - part.start]
            for column in range(len(self.tables) - 1, -1, -1):
                self._push(lanes, integers[part, column].astype(np.int64), column, words)
        stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.uint64)
        return states.astype("<u4").tobytes() + stream.astype("<u2").tobytes()

    def size(self, integers: NDArray[np.integer[Any]]) -> float:
        """Bytes that a block of integers [n, s] takes, without coding it: off by some bytes."""
        values = integers.astype(np.int64)
        place = places_of(values, self.low)
        bits = SCALE_BITS - np.log2(self.tables.astype(np.float64))
        escapes = int((place == ESCAPE).sum()) * 8 * _ESCAPE_BYTES
        taken = (
            float(bits[np.arange(len(self.tables)), place].sum())
            + escapes
            + len(values) * int(self.low.sum())
        )
        return taken / 8 + STATE_BYTES * lane_count(len(values))

    def decode(self, block: bytes, rows: int) -> Integers:
        """The inverse; bytes after the end of the stream are not looked at.

        Raises :class:`FormatError` for a block that is too short.
        """
        head = 4 * lane_count(rows)
        if len(block) < head:
            raise FormatError("a block of records is shorter than its states")
        states = np.frombuffer(block[:head], "<u4").astype(np.uint64)
        reader = _Words(np.frombuffer(block[head : head + (len(block) - head) // 2 * 2], "<u2"))
        found = np.empty((rows, len(self.tables)), np.int64)
        for part in _rounds(rows):
            lanes = states[: part.stop - part.start]
            for column in range(len(self.tables)):
                found[part, column] = self._pop(lanes, column, reader)
        return found

    def _push(self, states: States, values: Integers, column: int, words: list[NDArray[np.uint64]]) -> None:
        """The reverse of :meth:`_pop`, the last step of that first."""
        bits = int(self.low[column])
        if bits:
            _push_uniform(states, values & ((1 << bits) - 1), bits, words)
        high = values >> bits
        beyond = np.abs(high) > REACH
        if beyond.any():
            chosen = states[beyond]
            for byte in reversed(range(_ESCAPE_BYTES)):
                _push_uniform(chosen, high[beyond] >> (8 * byte) & 255, 8, words)
            states[beyond] = chosen
        place = np.where(beyond, ESCAPE, high + REACH)
        frequency = self.tables[column, place].astype(np.uint64)
        _push(states, self._starts[column, place], frequency, SCALE_BITS, words)

    def _pop(self, states: States, column: int, words: _Words) -> Integers:
        starts = self._starts[column]
        slot = states & np.uint64(_MASK)
        place = np.searchsorted(starts, slot, side="right") - 1
        begin = starts[place]
        states[:] = (starts[place + 1] - begin) * (states >> np.uint64(SCALE_BITS)) + slot - begin
        words.refill(states)
        values = place.astype(np.int64) - REACH
        beyond = place == ESCAPE
        if beyond.any():
            chosen = states[beyond]
            raw = sum(_pop_uniform(chosen, 8, words) << (8 * byte) for byte in range(_ESCAPE_BYTES))
            states[beyond] = chosen
            values[beyond] = (raw ^ _SIGN) - _SIGN
        bits = int(self.low[column])
        return (values << bits) + _pop_uniform(states, bits, words) if bits else values


_SIGN = 1 << (8 * _ESCAPE_BYTES - 1)


@dataclass
class _Words:
    """The words of a stream, taken in order."""

    stream: NDArray[np.uint16]
    taken: int = 0

    def refill(self, states: States) -> None:
        """Give each state that fell below the lowest one a word."""
        low = np.flatnonzero(states < _LOWEST)
        if low.size:
            words = self.stream[self.taken : self.taken + low.size]
            if len(words) < low.size:
                raise FormatError("a block of records ends too early")
            self.taken += low.size
            states[low] = states[low] << np.uint64(_WORD_BITS) | words


def places_of(integers: Integers, low: NDArray[np.uint8]) -> Integers:
    """The column of a table that each of the integers [n, s] has, whose ``low`` [s] lower bits are apart."""
    high = integers >> low.astype(np.int64)
    return np.where(np.abs(high) > REACH, ESCAPE, high + REACH)


def lane_count(rows: int) -> int:
    """How many states a block of rows has."""
    return -(-rows // ROWS_PER_LANE)


def _rounds(rows: int) -> Iterator[slice]:
    """The rows that the states take at one time: one each, from the first state on."""
    lanes = lane_count(rows)
    for begin in range(0, rows, lanes):
        yield slice(begin, min(begin + lanes, rows))


def _push(
    states: States,
    start: NDArray[np.uint64],
    frequency: NDArray[np.uint64],
    bits: int,
    words: list[NDArray[np.uint64]],
) -> None:
    full = np.flatnonzero(states >= frequency << np.uint64(2 * _WORD_BITS - bits))
    if full.size:
        words.append(states[full] & np.uint64(_LOWEST - 1))
        states[full] >>= np.uint64(_WORD_BITS)
    states[:] = (states // frequency << np.uint64(bits)) + states % frequency + start


def _push_uniform(states: States, values: Integers, bits: int, words: list[NDArray[np.uint64]]) -> None:
    _push(states, values.astype(np.uint64), np.ones_like(states), bits, words)


def _pop_uniform(states: States, bits: int, words: _Words) -> Integers:
    values = (states & np.uint64((1 << bits) - 1)).astype(np.int64)
    states >>= np.uint64(bits)
    words.refill(states)
    return values


def frequencies(counts: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Tables [s, PLACES] from how often each value was seen or expected [s, PLACES], none of them 0."""
    total = 1 << SCALE_BITS
    share = counts / counts.sum(axis=1, keepdims=True)
    found = np.maximum(1, np.rint(share * (total - PLACES))).astype(np.int64)
    largest = found.argmax(axis=1)
    found[np.arange(len(found)), largest] += total - found.sum(axis=1)
    tables: NDArray[np.uint16] = found.astype(np.uint16)
    return tables
