"""What every codec computes the same way."""

import numpy as np
import pytest

from cache_builder.format.codecs.fields import log_sum_exp, log_sum_exp_above, stored_first


@pytest.mark.parametrize("count", [1, 3, 12])
def test_the_largest_first_equal_ones_by_class(count: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.choice(np.array([-1e30, -2.0, -1e-40, -0.0, 0.0, 1e-40, 3.5, 1e30], np.float32), (200, 12))
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(stored_first(logits, count), expected)


def test_random_logits() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 1000)).astype(np.float32)
    np.testing.assert_array_equal(stored_first(logits, 20), np.argsort(-logits, axis=1)[:, :20])


def test_log_sum_exp_does_not_overflow() -> None:
    logits = np.array([[1000.0, 1000.0], [-1000.0, -2000.0]], np.float64)
    np.testing.assert_allclose(log_sum_exp(logits), [1000 + np.log(2), -1000])


def test_above_the_largest_is_no_difference_of_large_numbers() -> None:
    logits = np.array([[0, 0, -np.inf], [30, 0, -100], [1e4, 1e4 - 20, 0], [-3e38, 3e38, 0]], np.float32)
    expected = [np.log(2), np.log1p(np.exp(-30.0)), np.log1p(np.exp(-20.0)), 0]
    np.testing.assert_allclose(log_sum_exp_above(logits), expected, rtol=1e-6)
