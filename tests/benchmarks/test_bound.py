"""The rate-distortion bound: closed forms, and Gaussian logits whose covariances are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bound import Bound, Spread, bits, water_level

SHARES = (0.2, 0.1, 0.05, 0.02)


def spread(between: list[float], within: list[float]) -> Spread:
    return Spread(np.diag(between), np.diag(within))


@pytest.mark.parametrize("lost", SHARES)
def test_equal_variances_take_half_a_logarithm_each(lost: float) -> None:
    assert bits(np.full(10, 3.0), np.ones(10), lost) == pytest.approx(5 * np.log2(1 / lost))


def test_a_component_below_the_water_takes_nothing() -> None:
    variances, counts = np.array([16.0, 1.0]), np.ones(2)
    # 5/17 lost: the level is 4 where both are under water by 4 and 1.
    assert water_level(variances, counts, 5 / 17) == pytest.approx(4.0)
    assert bits(variances, counts, 5 / 17) == pytest.approx(1.0)


def test_nothing_is_needed_where_all_may_be_lost() -> None:
    assert bits(np.array([2.0, 1.0]), np.ones(2), 1.0) == pytest.approx(0.0, abs=1e-9)


def test_counts_are_repeated_components() -> None:
    once, twice = np.array([4.0, 1.0]), np.array([4.0, 1.0, 1.0])
    assert bits(once, np.array([1.0, 2.0]), 0.1) == pytest.approx(bits(twice, np.ones(3), 0.1))


@pytest.mark.parametrize("lost", SHARES)
def test_equal_views_are_coded_once(lost: float) -> None:
    equal = spread([4.0, 1.0, 0.1], [0.0, 0.0, 0.0])
    alone = Bound.alone(equal, equal).bytes_per_view(lost)
    assert Bound.jointly(equal, equal, 8).bytes_per_view(lost) == pytest.approx(alone / 8)


@pytest.mark.parametrize("lost", SHARES)
def test_views_with_nothing_in_common_gain_nothing(lost: float) -> None:
    apart = spread([0.0, 0.0], [4.0, 1.0])
    alone = Bound.alone(apart, apart).bytes_per_view(lost)
    assert Bound.jointly(apart, apart, 8).bytes_per_view(lost) == pytest.approx(alone)


def test_one_view_is_coded_alone() -> None:
    some = spread([4.0, 1.0], [1.0, 3.0])
    assert Bound.jointly(some, some, 1).bytes_per_view(0.1) == pytest.approx(
        Bound.alone(some, some).bytes_per_view(0.1)
    )


def test_the_closed_form_of_two_views() -> None:
    # One class, B = 7, W = 1: the mean has 15, the contrast 1; a level of 1/2 leaves 1 of 16 lost.
    some = spread([7.0], [1.0])
    expected = (np.log2(15 / 0.5) + np.log2(1 / 0.5)) / 2 / 8 / 2
    assert Bound.jointly(some, some, 2).bytes_per_view(1 / 16) == pytest.approx(expected)


def test_covariances_of_gaussian_logits_are_found() -> None:
    rng = np.random.default_rng(0)
    between, within = np.array([9.0, 4.0, 1.0, 0.25]), np.array([1.0, 4.0, 0.25, 0.25])
    samples = rng.normal(size=(20_000, 1, 4)) * np.sqrt(between)
    logits = 5 + samples + rng.normal(size=(20_000, 8, 4)) * np.sqrt(within)
    found = Spread.of(logits, np.full(4, 5.0))
    np.testing.assert_allclose(found.between, np.diag(between), atol=0.2)
    np.testing.assert_allclose(found.within, np.diag(within), atol=0.1)
    assert found.between_views == pytest.approx(within.sum() / (within + between).sum(), abs=0.01)
    known = Spread(np.diag(between), np.diag(within))
    for views in (1, 4, 8):
        expected = Bound.jointly(known, known, views).bytes_per_view(0.1)
        assert Bound.jointly(found, found, views).bytes_per_view(0.1) == pytest.approx(expected, rel=0.02)


def test_a_wrong_basis_costs_bytes() -> None:
    held = spread([16.0, 0.1], [0.0, 0.0])
    turned = np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
    wrong = Spread(turned @ np.diag([16.0, 0.1]) @ turned.T, np.zeros((2, 2)))
    assert Bound.alone(wrong, held).bytes_per_view(0.1) > Bound.alone(held, held).bytes_per_view(0.1)
