"""The entropy coder of blocks: what comes back, what it takes, and what becomes of damaged blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cache_builder.format.codecs.entropy import (
    ESCAPE,
    PLACES,
    REACH,
    SCALE_BITS,
    EntropyCoder,
    frequencies,
    lane_count,
    places_of,
)
from cache_builder.format.errors import FormatError

ROWS = [0, 1, 5, 15, 16, 17, 33, 4096]
LARGEST = 2**23 - 1


def laplace(rows: int, columns: int, seed: int = 0) -> NDArray[np.int64]:
    """Integers [n, s] of falling width."""
    rng = np.random.default_rng(seed)
    widths = 12.0 / np.arange(1, columns + 1)
    return np.rint(rng.laplace(size=(rows, columns)) * widths).astype(np.int64)


def coder_of(integers: NDArray[np.int64], low: int = 0) -> EntropyCoder:
    """With tables of these integers."""
    lows = np.full(integers.shape[1], low, np.uint8)
    places = places_of(integers, lows)
    counts = np.stack([np.bincount(column, minlength=PLACES) for column in places.T])
    return EntropyCoder(frequencies(counts + 0.1), lows)


COLUMNS = 6
CODER = coder_of(laplace(5000, COLUMNS))


def lopsided() -> EntropyCoder:
    """Two columns: the first nearly always 0, the second hardly ever, with all other values as likely."""
    tables = np.ones((2, PLACES), np.uint16)
    tables[0, REACH] = tables[1, ESCAPE - 1] = 2**SCALE_BITS - (PLACES - 1)
    return EntropyCoder(tables, np.zeros(2, np.uint8))


class TestRoundTrip:
    @pytest.mark.parametrize("low", [0, 3, 16])
    @pytest.mark.parametrize("rows", ROWS)
    def test_any_number_of_rows(self, rows: int, low: int) -> None:
        integers = laplace(rows, COLUMNS) * 2**low + np.arange(rows)[:, None] % 2**low
        coder = coder_of(laplace(500, COLUMNS) * 2**low, low)
        found = coder.decode(coder.encode(integers), rows)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, integers)

    @given(
        rows=st.lists(
            st.lists(st.integers(-LARGEST - 1, LARGEST) | st.integers(-33, 33), min_size=2, max_size=2),
            max_size=40,
        ),
        low=st.lists(st.sampled_from([0, 1, 7, 16]), min_size=2, max_size=2),
    )
    @settings(deadline=None, max_examples=150)
    def test_any_integers_of_24_bits(self, rows: list[list[int]], low: list[int]) -> None:
        integers = np.array(rows, np.int64).reshape(-1, 2)
        coder = EntropyCoder(CODER.tables[:2], np.array(low, np.uint8))
        np.testing.assert_array_equal(coder.decode(coder.encode(integers), len(integers)), integers)

    def test_the_ends_of_what_an_escape_holds(self) -> None:
        ends = [-(2**23), 2**23 - 1, REACH + 1, -REACH - 1, REACH, -REACH, 0]
        integers = np.array([ends, ends[::-1]], np.int64).T << 4
        coder = EntropyCoder(CODER.tables[:2], np.array([4, 4], np.uint8))
        np.testing.assert_array_equal(coder.decode(coder.encode(integers), 7), integers)

    @pytest.mark.parametrize("rows", [1, 17, 4096])
    def test_the_rarest_and_the_most_frequent_values(self, rows: int) -> None:
        """A state stays between 2**16 and 2**32 at frequencies of 1 and of 2**14 - 63."""
        coder, rng = lopsided(), np.random.default_rng(0)
        often = np.tile([0, REACH], (rows, 1))
        for integers in (often, often[:, ::-1], rng.integers(-REACH, REACH + 1, (rows, 2)), often * 1000):
            block = coder.encode(integers)
            states = np.frombuffer(block[: 4 * lane_count(rows)], "<u4")
            assert (states >= 2**16).all()
            np.testing.assert_array_equal(coder.decode(block, rows), integers)
        assert len(coder.encode(often)) < 4 * lane_count(rows) + rows / 16

    def test_what_follows_the_stream_is_not_looked_at(self) -> None:
        integers = laplace(100, COLUMNS)
        block = CODER.encode(integers)
        for rest in (b"\0", b"\0" * 999, b"\xff" * 7):
            np.testing.assert_array_equal(CODER.decode(block + rest, 100), integers)


class TestSize:
    @pytest.mark.parametrize("rows", [16, 500, 4096])
    @pytest.mark.parametrize("low", [0, 2])
    def test_the_estimate_is_off_by_some_bytes(self, rows: int, low: int) -> None:
        integers = laplace(rows, COLUMNS, seed=3) * 2**low
        integers[::50] *= 40
        coder = coder_of(integers, low)
        length = len(coder.encode(integers))
        assert abs(coder.size(integers) - length) < 8 + 0.01 * length

    def test_near_the_entropy(self) -> None:
        integers = laplace(4096, COLUMNS).clip(-REACH, REACH)
        entropy = 0.0
        for column in integers.T:
            share = np.unique(column, return_counts=True)[1] / len(integers)
            entropy -= float((share * np.log2(share)).sum()) * len(integers) / 8
        assert entropy < len(coder_of(integers).encode(integers)) < 1.04 * entropy + 3 * lane_count(4096)

    def test_nothing_takes_no_bytes(self) -> None:
        assert CODER.encode(np.zeros((0, COLUMNS), np.int64)) == b""
        assert CODER.size(np.zeros((0, COLUMNS), np.int64)) == 0


class TestDamage:
    INTEGERS = laplace(60, COLUMNS, seed=4)
    BLOCK = CODER.encode(INTEGERS)

    @pytest.mark.parametrize("length", range(0, len(BLOCK) - 1, 3))
    def test_a_block_that_ends_early_is_refused(self, length: int) -> None:
        with pytest.raises(FormatError, match="a block of records"):
            CODER.decode(self.BLOCK[:length], len(self.INTEGERS))

    @given(bit=st.integers(0, 8 * len(BLOCK) - 1))
    @settings(deadline=None, max_examples=150)
    def test_a_flipped_bit_gives_other_numbers_or_an_error(self, bit: int) -> None:
        """Every step is one to one: the same numbers and the same last states come of one block alone."""
        damaged = bytearray(self.BLOCK)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = CODER.decode(bytes(damaged), len(self.INTEGERS))
        except FormatError:
            return
        assert (found != self.INTEGERS).any()

    @given(block=st.binary(max_size=400), rows=st.integers(0, 50))
    @settings(deadline=None, max_examples=150)
    def test_any_bytes_give_numbers_or_an_error(self, block: bytes, rows: int) -> None:
        for coder in (CODER, lopsided()):
            try:
                found = coder.decode(block, rows)
            except FormatError:
                continue
            assert np.abs(found).max(initial=0) < 2**24

    @pytest.mark.parametrize("fill", [b"\0", b"\xff"])
    def test_states_at_both_ends_do_not_overflow(self, fill: bytes) -> None:
        for coder in (CODER, lopsided()):
            with pytest.raises(FormatError, match="does not end where coding it began"):
                coder.decode(fill * 20_000, 256)


class TestTables:
    def test_frequencies_add_up_and_none_is_0(self) -> None:
        rng = np.random.default_rng(0)
        counts = np.concatenate([rng.random((50, PLACES)) ** 20, np.eye(PLACES) + 1e-9])
        tables = frequencies(counts)
        assert (tables.sum(axis=1, dtype=int) == 2**SCALE_BITS).all()
        assert tables.min() == 1
        assert tables.max() == 2**SCALE_BITS - (PLACES - 1)

    @pytest.mark.parametrize("wrong", ["none", "sum", "low"])
    def test_others_are_refused(self, wrong: str) -> None:
        tables, low = CODER.tables.copy(), CODER.low.copy()
        if wrong == "low":
            low[1] = 17
        else:
            tables[2, 5] = 0 if wrong == "none" else tables[2, 5] + 1
        with pytest.raises(FormatError, match="frequencies of 1 or more that add up to 16384"):
            EntropyCoder(tables, low)

    def test_places(self) -> None:
        found = places_of(np.array([[0, 31, 32, -31, -32, 4 * 31 + 3]]), np.array([0, 0, 0, 0, 0, 2]))
        assert found.tolist() == [[31, 62, ESCAPE, 0, ESCAPE, 62]]
