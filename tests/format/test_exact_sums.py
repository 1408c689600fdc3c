"""Sums that come number by number are those of ``math.fsum``, to the last bit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_builder.format.exact_sums import ExactSums

NUMBERS = st.lists(st.floats(-1e100, 1e100), max_size=50)


@given(NUMBERS)
def test_a_sum_is_rounded_once(numbers: list[float]) -> None:
    sums = ExactSums()
    for number in numbers:
        sums.add([number])
    assert sums.value(0) == math.fsum(numbers)


@given(NUMBERS)
def test_sums_are_apart(numbers: list[float]) -> None:
    sums = ExactSums()
    for number in numbers:
        sums.add([number, 1.0], first=3)
    assert (sums.value(0), sums.value(3), sums.value(4)) == (0.0, math.fsum(numbers), len(numbers))


def test_what_no_float_holds_is_an_error() -> None:
    sums = ExactSums()
    sums.add([1e308])
    with pytest.raises(OverflowError):
        sums.add([1e308])
