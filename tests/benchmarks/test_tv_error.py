"""The total-variation benchmark, on a teacher trained for two seconds."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import tv_error


def test_a_real_teacher_keeps_its_distribution_also_when_softened() -> None:
    train, test = tv_error.split_digits()
    even, _, _, sketch = tv_error.measure(train, test, places=2, steps=150)
    errors = {"even": even[3:], "sketch": sketch[3:]}
    mean_t1, mean_t4 = 0, 3
    assert errors["sketch"][mean_t1] < errors["even"][mean_t1]
    assert errors["sketch"][mean_t4] < 0.02 < 0.2 < errors["even"][mean_t4]  # type: ignore[operator]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_total_variation_of_known_distributions(temperature: float) -> None:
    halves = np.log(np.array([[0.5, 0.5], [1e-30, 1.0]])).astype(np.float32) * temperature
    ones = np.log(np.array([[1.0, 1e-30], [1.0, 1e-30]])).astype(np.float32) * temperature
    np.testing.assert_allclose(tv_error.total_variation(halves, ones, temperature), [0.5, 1.0], atol=1e-6)


def test_the_even_tail_keeps_the_top_and_the_mass() -> None:
    live = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32) * 3
    dense = tv_error.even_tail(live, 5).astype(np.float64)
    best = np.argsort(-live, axis=1)[:, :5]
    np.testing.assert_array_equal(
        np.take_along_axis(dense, best, axis=1), np.take_along_axis(live, best, axis=1)
    )
    total = np.exp(live.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(np.exp(dense).sum(axis=1), total, rtol=1e-5)
