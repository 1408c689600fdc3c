"""A teacher whose own noise hides differences vouches for nothing."""

import numpy as np
import pytest

from cache_builder.verify.teacher import _repeatable


@pytest.mark.parametrize(("noise", "fails"), [(0.0, False), (0.01, False), (0.2, True), (float("inf"), True)])
def test_noise_of_the_order_of_the_spread_fails(noise: float, fails: bool) -> None:
    live = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    assert _repeatable(noise, live).failed is fails
