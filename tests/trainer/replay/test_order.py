from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_builder.format.errors import ConfigError
from trainer.replay.order import BatchPlan, epoch_order


def test_order_is_pinned():
    """A golden: a change here changes every run and every resumed run."""
    assert epoch_order(3, 1, 8).tolist() == [7, 3, 5, 6, 4, 0, 2, 1]


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000), st.integers(1, 300))
def test_every_epoch_is_a_permutation(seed, epoch, samples):
    assert sorted(epoch_order(seed, epoch, samples).tolist()) == list(range(samples))


def test_epochs_and_seeds_differ():
    orders = [epoch_order(seed, epoch, 100).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9


@given(
    world=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    per_micro=st.integers(1, 5),
    steps=st.integers(1, 3),
    rest=st.integers(0, 3),
)
def test_ranks_and_micro_batches_divide_a_step_without_overlap(world, accumulation, per_micro, steps, rest):
    batch = world * accumulation * per_micro
    samples = steps * batch + min(rest, batch - 1)
    plans = [
        BatchPlan(samples, batch, 2, 3, seed=1, accumulation=accumulation, rank=rank, world=world)
        for rank in range(world)
    ]
    whole = BatchPlan(samples, batch, 2, 3, seed=1)
    for step in range(whole.steps):
        parts = [part for plan in plans for part in plan.micro_batches(step)]
        assert all(len(part) == per_micro for part in parts)
        assert np.concatenate(parts).tolist() == whole.micro_batches(step)[0].tolist()


def test_a_stream_from_the_middle_is_the_rest_of_the_whole():
    plan = BatchPlan(50, 8, epochs=3, views=2, seed=0, accumulation=2)
    everything = [(views, tuple(rows)) for views, rows in plan.stream(0)]
    assert len(everything) == plan.steps * 2 == 3 * 6 * 2
    assert [(views, tuple(rows)) for views, rows in plan.stream(7)] == everything[14:]


def test_views_follow_the_epochs():
    plan = BatchPlan(20, 10, epochs=5, views=2, seed=0)
    assert [plan.views_of(step) for step in range(plan.steps)] == [
        (view,) for view in (0, 0, 1, 1, 0, 0, 1, 1, 0, 0)
    ]


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (2, [(0, 1), (0, 1), (0, 1), (0, 1)]),
        (4, [(0, 1), (2, 3), (0, 1), (2, 3)]),
        (5, [(0, 1), (2, 3), (4, 0), (1, 2)]),
    ],
)
def test_two_views_of_an_epoch_are_neighbours(views, expected):
    plan = BatchPlan(20, 20, epochs=4, views=views, seed=0, views_per_sample=2)
    assert [plan.views_of(step) for step in range(plan.steps)] == expected
    assert [pair for pair, _ in plan.stream(0)] == expected


def test_the_order_does_not_depend_on_the_views_of_a_batch():
    one, two = (BatchPlan(50, 8, epochs=2, views=4, seed=0, views_per_sample=n) for n in (1, 2))
    for (_, ours), (_, theirs) in zip(one.stream(0), two.stream(0), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 51}, "exceeds the 50 training samples"),
        ({"batch_size": 10, "accumulation": 3}, "multiple of 3"),
        ({"batch_size": 10, "world": 4}, "multiple of 4"),
        ({"batch_size": 10, "views_per_sample": 2}, "cannot hold 2 views of a sample: there are only 1"),
    ],
)
def test_batches_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        BatchPlan(samples=50, epochs=1, views=1, seed=0, **arguments)
