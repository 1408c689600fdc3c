from __future__ import annotations

import numpy as np
import pytest

from cache_builder.verify.faithful import (
    compare,
    noise_floor,
    of_other_records,
    rms,
    rms_rows,
)

RNG = np.random.default_rng(0)
LIVE = RNG.normal(size=(50, 30)).astype(np.float32)
STEP = 0.25


def coded(logits: np.ndarray) -> np.ndarray:
    """A quantiser that stands for the codec."""
    rounded: np.ndarray = np.rint(logits / STEP) * np.float32(STEP)
    return rounded.astype(np.float32)


def noisy(scale: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=LIVE.shape) * scale
    return (LIVE + noise).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-4, 1e-2])
def test_what_noise_does_is_faithful(noise: float) -> None:
    """Stored, live and control each with a noise of their own, above all with values that round otherwise."""
    stored, live, again = coded(noisy(noise, 1)), noisy(noise, 2), noisy(noise, 3)
    fidelity = compare(stored, live, again, coded(live), coded(again), noise_floor(live, "fp32", True))
    assert fidelity.is_faithful, fidelity
    assert fidelity.loss == pytest.approx(STEP / np.sqrt(12), rel=0.1)


@pytest.mark.parametrize("error", [0.03, 0.1, 1.0])
def test_more_than_noise_is_not(error: float) -> None:
    stored, live, again = coded(noisy(error, 1)), LIVE, noisy(1e-6, 3)
    fidelity = compare(stored, live, again, coded(live), coded(again), noise_floor(live, "fp32", True))
    assert not fidelity.is_faithful, fidelity


def test_one_wrong_record_is_not_and_is_named() -> None:
    stored = coded(LIVE)
    stored[17] = stored[18]
    fidelity = compare(stored, LIVE, LIVE, coded(LIVE), coded(LIVE), 1e-6)
    assert not fidelity.is_faithful
    assert fidelity.worst == 17
    assert of_other_records(stored, coded(LIVE), 0.01) == [(17, 18)]


def test_nan_is_not() -> None:
    stored = coded(LIVE)
    stored[3, 4] = np.nan
    fidelity = compare(stored, LIVE, LIVE, coded(LIVE), coded(LIVE), 1e-6)
    assert not fidelity.is_faithful
    assert fidelity.worst == 3


def test_another_device_may_differ_by_more() -> None:
    assert noise_floor(LIVE, "fp32", False) > 100 * noise_floor(LIVE, "fp32", True)


def test_rms() -> None:
    assert rms(np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))
    assert rms(np.array([np.nan])) == np.inf
    np.testing.assert_allclose(rms_rows(np.array([[3.0, 4.0], [0, 0]])), [np.sqrt(12.5), 0])
