"""What a setting costs and loses: against second computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cache_builder.calibration import fidelity
from cache_builder.calibration.fidelity import Held, measure, stored_bytes
from cache_builder.calibration.sketch import Fitted, fit_sketch
from tests.cache_builder.calibration.test_calibrate import logits_of

FITTED = Fitted.of(logits_of(400), 12, 10)
HELD = Held.of(logits_of(900, seed=4))


def test_total_variation_at_every_temperature() -> None:
    point = measure(FITTED, HELD, 5, 3, 0.5, 0.05)
    codec = fit_sketch(FITTED, 5, 3, 0.5, 0.05)
    live = HELD.logits[:768]
    decoded = codec.decode(codec.encode(live))
    for temperature, found in zip((1, 2, 4, 8), point.tv, strict=True):
        p, q = (torch.from_numpy(z).double().div(temperature).softmax(1) for z in (live, decoded))
        assert found == pytest.approx((p - q).abs().sum(1).mean().item() / 2, rel=1e-3)
    assert point.logit_error == pytest.approx(np.sqrt(np.square(decoded - live).mean()), rel=1e-3)


def test_a_coarser_step_costs_less_and_loses_more() -> None:
    fine, coarse = (measure(FITTED, HELD, 5, 12, step, 0.05) for step in (0.2, 2.0))
    assert coarse.bytes_per_view < fine.bytes_per_view
    assert coarse.gradient_cosine < fine.gradient_cosine
    assert all(a > b for a, b in zip(coarse.tv, fine.tv, strict=True))


def test_a_perfect_record_loses_nothing() -> None:
    cosines = fidelity.gradient_cosines(HELD, HELD.logits[:768])
    assert cosines == pytest.approx([1] * len(cosines), abs=1e-6)


def test_a_tenth_of_a_chunk_tells_the_size_of_a_chunk() -> None:
    codec = fit_sketch(FITTED, 5, 12, 0.3, 0.05)
    many = codec.pack(codec.encode(logits_of(4096, seed=9)))
    assert stored_bytes(many[:800], codec) == pytest.approx(stored_bytes(many, codec), rel=0.05)
    assert stored_bytes(many[:1], codec) > 0
