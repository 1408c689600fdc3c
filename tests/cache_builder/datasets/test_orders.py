"""A teacher that is right far more often under another order of the classes is told, and only then."""

from __future__ import annotations

import numpy as np
import pytest

from cache_builder.datasets.orders import OrderTally, other_orders

NAMES = tuple(sorted(map(str, range(12))))


def teacher(labels: np.ndarray, order: np.ndarray, right: float, seed: int = 0) -> np.ndarray:
    """Best classes of a teacher that numbers the classes by ``order`` and errs at random."""
    rng = np.random.default_rng(seed)
    errs = rng.random(len(labels)) > right
    return np.where(errs, rng.integers(0, len(order), len(labels)), order[labels])


def tally(order: np.ndarray, right: float, samples: int, views: int = 1, names: object = NAMES) -> OrderTally:
    labels = np.tile(np.repeat(np.arange(12), samples), views)
    found = OrderTally(names, 12, views)  # type: ignore[arg-type]
    found.add(labels, teacher(labels, order, right))
    return found


NATURAL = other_orders(NAMES, 12)["natural order"]


def test_orders_say_where_each_class_would_be() -> None:
    assert [NATURAL[NAMES.index(str(number))] for number in range(12)] == list(range(12))
    higher = other_orders(None, 3)["class numbers one higher"]
    assert higher.tolist() == [1, 2, 0]


def test_the_present_order_is_no_other() -> None:
    assert set(other_orders(("a", "b", "c"), 3)) == {"class numbers one higher", "class numbers one lower"}
    assert len(other_orders(("a", "b"), 2)) == 1  # both shifts of two classes are one


def test_natural_order_is_told_with_both_shares_and_the_remedy() -> None:
    found = tally(NATURAL, 0.9, samples=10).better()
    assert found is not None
    assert found.told == "natural order"
    assert found.first[:4] == ("0", "1", "2", "3")
    assert found.better > 0.8 > 0.4 > found.top1
    said = found.warning("imagefolder:d")
    assert "WARNING" in said
    assert "'imagefolder:d?classes=natural'" in said


@pytest.mark.parametrize("shift", [1, -1])
def test_numbers_that_count_from_elsewhere_are_told(shift: int) -> None:
    order = (np.arange(12) + shift) % 12
    found = tally(order, 0.8, samples=10, names=None).better()
    assert found is not None
    assert found.told == f"class numbers one {'higher' if shift > 0 else 'lower'}"
    assert "?classes=FILE" in found.warning("csv:t.csv")


@pytest.mark.parametrize("right", [0.0, 0.2, 0.9])
def test_a_teacher_in_the_present_order_is_left_alone(right: float) -> None:
    for seed in range(20):
        labels = np.repeat(np.arange(12), 20)
        found = OrderTally(NAMES, 12, 1)
        found.add(labels, teacher(labels, np.arange(12), right, seed))
        assert found.better() is None


def test_views_of_one_sample_are_one_observation() -> None:
    """A few samples in many views prove no more than the samples do."""
    labels = np.tile(np.array([2, 3, 4]), 64)
    found = OrderTally(NAMES, 12, 64)
    found.add(labels, NATURAL[labels])
    assert found.better() is None


def test_nothing_counted_is_no_finding() -> None:
    assert OrderTally(None, 12, 1).better() is None
