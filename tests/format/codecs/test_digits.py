"""Integers as digits of bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_builder.format.codecs.digits import WIDE, Digits, is_radix

RADIX = st.one_of(st.sampled_from([3, 5, 7, 9, 15, 255, WIDE]), st.integers(1, 127).map(lambda n: 2 * n + 1))


@given(values=st.lists(RADIX, min_size=1, max_size=30), data=st.data())
@settings(deadline=None, max_examples=100)
def test_integers_come_back_and_those_beyond_are_cut_off(values: list[int], data: st.DataObject) -> None:
    digits = Digits(tuple(values))
    limits = [(m - 1) // 2 for m in values]
    drawn = [
        [data.draw(st.sampled_from([-limit - 9, -limit, -1, 0, 1, limit, limit + 9])) for limit in limits]
        for _ in range(3)
    ]
    integers = np.array(drawn, np.int64)
    packed = digits.pack(integers)
    assert packed.dtype == np.uint8
    assert packed.shape == (3, digits.bytes)
    np.testing.assert_array_equal(digits.unpack(packed), np.clip(integers, -digits.limit, digits.limit))
    np.testing.assert_array_equal(digits.unpack_first(packed), digits.unpack(packed)[:, 0])


def test_every_value_of_a_wide_digit_comes_back() -> None:
    digits = Digits((3, WIDE, 5))
    integers = np.zeros((WIDE, 3), np.int64)
    integers[:, 1] = np.arange(WIDE) - 32767
    assert digits.bytes == 4
    np.testing.assert_array_equal(digits.unpack(digits.pack(integers)), integers)


def test_digits_share_a_byte_while_their_product_fits() -> None:
    digits = Digits.of_runs([(5, 3), (1, 3), (1, 85), (1, WIDE), (2, 15), (1, 3)])
    # 3^5 = 243; then 3 * 85 = 255; two bytes; 15 * 15 = 225; one more.
    assert digits.place.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 4, 4, 5]
    assert digits.weight.tolist() == [1, 3, 9, 27, 81, 1, 3, 1, 1, 15, 1]
    assert digits.bytes == 6


def test_the_first_digit_is_the_least_significant_and_of_two_bytes_the_lower_comes_first() -> None:
    digits = Digits((3, 5, WIDE))
    assert digits.pack(np.array([[1, -2, 1]])).tolist() == [[2, 0x00, 0x80]]
    assert digits.pack(np.array([[-1, 2, -32767]])).tolist() == [[4 * 3, 0, 0]]


def test_bytes_that_no_digits_give_are_some_integers() -> None:
    digits = Digits((3, 3, WIDE))
    found = digits.unpack(np.full((1, 3), 255, np.uint8))
    assert (np.abs(found) <= digits.limit).all()


@pytest.mark.parametrize("runs", [[], [(1, 7)]])
def test_no_rows(runs: list[tuple[int, int]]) -> None:
    digits = Digits.of_runs(runs)
    assert digits.unpack(digits.pack(np.zeros((0, len(runs)), np.int64))).shape == (0, len(runs))


def test_which_numbers_of_values_there_are() -> None:
    assert [m for m in (-3, 0, 1, 2, 3, 4, 253, 255, 256, 257, 65533, WIDE) if is_radix(m)] == [
        3,
        253,
        255,
        WIDE,
    ]
