"""An entropy coder of small integers: interleaved rANS over the rows of a block, in NumPy alone.

Asymmetric numeral systems (Duda, 1311.2540), many states side by side (Giesen, 1402.3392). The model is
static: a table of frequencies for each integer of a row, which the store keeps once, so that a block pays for
no table of its own. The general compressors that Zarr has pay at least a bit for every symbol and a table for
every block: 25.3 bytes or more where this coder takes 18.8 (``benchmarks/entropy.py``). FORMAT.md states the
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

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
WORD_BITS = 16
_LOWEST = 1 << WORD_BITS
# As arrays, which NumPy need not convert in every one of thousands of calls.
_MASK, _SCALE, _LEAST = np.array((1 << SCALE_BITS) - 1), np.array(SCALE_BITS), np.array(_LOWEST)
_WORD, _REACH = np.array(WORD_BITS), np.array(REACH)
_SIGN = 1 << (8 * _ESCAPE_BYTES - 1)

Integers = NDArray[np.int64]


class _Column(NamedTuple):
    """The table of a column as decoding needs it."""

    place: NDArray[np.uint8]
    """In whose part each of the 2**14 slots lies."""
    frequency: Integers
    """[PLACES]."""
    start: Integers
    """Where the part of each place begins [PLACES]."""
    low: int


@dataclass(frozen=True)
class EntropyCoder:
    """Codes blocks of integers [n, s], every column by a table of its own.

    A state is below 2**32 after every step, whatever a damaged block holds, so that int64 never overflows: a
    value of frequency f makes of it less than ``f * 2**18``, and f is below 2**14; a word is added to what is
    below 2**16.
    """

    tables: NDArray[np.uint16]
    """[s, PLACES]: how often each ``integer >> low`` is expected, of 2**14; the last is the escape."""
    low: NDArray[np.uint8]
    """[s]: this many lower bits of an integer are stored as they are, because all are equally frequent."""

    def __post_init__(self) -> None:
        sums = self.tables.sum(axis=1, dtype=np.int64)
        if (self.tables == 0).any() or (sums != 1 << SCALE_BITS).any() or (self.low > WORD_BITS).any():
            raise FormatError(
                f"the tables of an entropy coder must have {PLACES} frequencies of 1 or more that add up to "
                f"{1 << SCALE_BITS}, and no more than {WORD_BITS} lower bits"
            )

    @cached_property
    def _columns(self) -> list[_Column]:
        """The tables one by one; the places of the slots take 16 KiB each."""
        places = np.arange(PLACES, dtype=np.uint8)
        frequencies = self.tables.astype(np.int64)
        starts = np.cumsum(frequencies, axis=1) - frequencies
        return [
            _Column(np.repeat(places, frequency), frequency, start, low)
            for frequency, start, low in zip(frequencies, starts, self.low.tolist(), strict=True)
        ]

    def encode(self, integers: NDArray[np.integer[Any]]) -> bytes:
        """Integers [n, s] of 24 bits, and ``low`` more, to the bytes of a block."""
        rows = len(integers)
        states = np.full(lane_count(rows), _LOWEST, np.int64)
        words: list[Integers] = []
        columns = [
            _ToCode.of(column, np.ascontiguousarray(values, np.int64))
            for column, values in zip(self._columns, integers.T, strict=True)
        ]
        for part in reversed(list(_rounds(rows))):
            lanes = states[: part.stop - part.start]
            for column in reversed(columns):
                column.push(lanes, part, words)
        stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
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

        Raises :class:`FormatError` for a block that is too short or damaged.
        """
        head = 4 * lane_count(rows)
        if len(block) < head:
            raise FormatError("a block of records is shorter than its states")
        states = np.frombuffer(block[:head], "<u4").astype(np.int64)
        stream = np.frombuffer(block[head : head + (len(block) - head) // 2 * 2], "<u2")
        words = _Words(stream.astype(np.int64))
        found = np.empty((len(self.tables), rows), np.int64)
        for part in _rounds(rows):
            lanes = states[: part.stop - part.start]
            for column, values in zip(self._columns, found[:, part], strict=True):
                _pop_integers(lanes, column, words, values)
        if (states != _LOWEST).any():
            raise FormatError("a block of records does not end where coding it began")
        return np.ascontiguousarray(found.T)


@dataclass
class _Words:
    """The words of a stream, taken in order."""

    stream: Integers
    taken: int = 0

    def refill(self, states: Integers) -> None:
        """Give each state that fell below the lowest one a word."""
        low = (states < _LEAST).nonzero()[0]
        if low.size:
            words = self.stream[self.taken : self.taken + low.size]
            if len(words) < low.size:
                raise FormatError("a block of records ends too early")
            self.taken += low.size
            fallen = states[low]
            fallen <<= _WORD
            fallen |= words
            states[low] = fallen


class _ToCode(NamedTuple):
    """The integers of a column [n], and what coding them takes."""

    high: Integers
    lower: Integers
    low: int
    is_beyond: NDArray[np.bool_] | None
    frequency: Integers
    start: Integers

    @classmethod
    def of(cls, column: _Column, values: Integers) -> Self:
        high = values >> column.low
        is_beyond = np.abs(high) > REACH
        place = np.where(is_beyond, ESCAPE, high + REACH)
        lower = values & ((1 << column.low) - 1)
        escapes = is_beyond if is_beyond.any() else None
        return cls(high, lower, column.low, escapes, column.frequency[place], column.start[place])

    def push(self, states: Integers, part: slice, words: list[Integers]) -> None:
        """The reverse of :func:`_pop_integers`, the last step of that first."""
        if self.low:
            _push_uniform(states, self.lower[part], self.low, words)
        if self.is_beyond is not None and (beyond := self.is_beyond[part].nonzero()[0]).size:
            chosen, high = states[beyond], self.high[part][beyond]
            for byte in reversed(range(_ESCAPE_BYTES)):
                _push_uniform(chosen, high >> (8 * byte) & 255, 8, words)
            states[beyond] = chosen
        _push(states, self.start[part], self.frequency[part], SCALE_BITS, words)


def _pop_integers(states: Integers, column: _Column, words: _Words, values: Integers) -> None:
    """Take an integer off each state, into ``values``.

    Thousands of these make a block, and the calls are what takes the time: few of them, and those in place.
    """
    slot = states & _MASK
    place = column.place[slot]
    values[:] = place
    states >>= _SCALE
    states *= column.frequency[values]
    states += slot
    states -= column.start[values]
    words.refill(states)
    beyond = (place == ESCAPE).nonzero()[0] if ESCAPE in place.tobytes() else None
    values -= _REACH
    if beyond is not None:
        chosen = states[beyond]
        raw = sum(_pop_uniform(chosen, 8, words) << (8 * byte) for byte in range(_ESCAPE_BYTES))
        states[beyond] = chosen
        values[beyond] = (raw ^ _SIGN) - _SIGN
    if column.low:
        values <<= column.low
        values += _pop_uniform(states, column.low, words)


def _push(states: Integers, start: Integers, frequency: Integers, bits: int, words: list[Integers]) -> None:
    full = (states >= frequency << (2 * WORD_BITS - bits)).nonzero()[0]
    if full.size:
        words.append(states[full] & (_LOWEST - 1))
        states[full] >>= WORD_BITS
    whole, rest = np.divmod(states, frequency)
    states[:] = (whole << bits) + rest + start


def _push_uniform(states: Integers, values: Integers, bits: int, words: list[Integers]) -> None:
    _push(states, values, np.ones_like(states), bits, words)


def _pop_uniform(states: Integers, bits: int, words: _Words) -> Integers:
    values = states & ((1 << bits) - 1)
    states >>= bits
    words.refill(states)
    return values


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
    for begin in range(0, rows, max(1, lanes)):
        yield slice(begin, min(begin + lanes, rows))


def frequencies(counts: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Tables [s, PLACES] from how often each value was seen or expected [s, PLACES], none of them 0."""
    total = 1 << SCALE_BITS
    share = counts / counts.sum(axis=1, keepdims=True)
    found = np.maximum(1, np.rint(share * (total - PLACES))).astype(np.int64)
    largest = found.argmax(axis=1)
    found[np.arange(len(found)), largest] += total - found.sum(axis=1)
    tables: NDArray[np.uint16] = found.astype(np.uint16)
    return tables
