"""The next step goes on while the result of this one is used; work is cut in order."""

import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_builder.format.ahead import ahead, batched_by
from cache_builder.format.waiting import patience_at_most, store_waiting


@given(st.lists(st.integers(), max_size=8))
def test_results_come_in_order(inputs: list[int]) -> None:
    assert list(ahead(lambda one: one * 2, inputs)) == [one * 2 for one in inputs]


def test_the_next_one_goes_on_while_a_result_is_used() -> None:
    second_began = threading.Event()

    def step(one: int) -> int:
        if one == 1:
            second_began.set()
        return one

    results: Iterator[int] = ahead(step, [0, 1])
    assert next(results) == 0
    assert second_began.wait(10)
    assert list(results) == [1]


def test_a_step_knows_the_context_of_its_caller() -> None:
    with patience_at_most(0.25):
        assert list(ahead(lambda _: store_waiting().patience_s, [0, 1, 2])) == [0.25] * 3


def test_what_a_step_raises_is_raised_where_its_result_would_come() -> None:
    results = ahead(lambda one: 1 // one, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 12))
def test_batches_are_as_large_as_they_may_be(items: list[int], most: int) -> None:
    batches = list(batched_by(items, lambda item: item, most))
    assert [item for batch in batches for item in batch] == items
    assert all(batch and (sum(batch) <= most or len(batch) == 1) for batch in batches)
    for batch, following in itertools.pairwise(batches):
        assert sum(batch) + following[0] > most
