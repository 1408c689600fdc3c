"""Where all logits are stored because a cache has few records, and where a sketch stays."""

import numpy as np
import pytest

from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Calibration, Scope
from cache_builder.format.manifest import CodecRequest
from tests.cache_builder.calibration.test_calibrate import logits_of


def fitted(logits: np.ndarray, request: CodecRequest | None = None) -> Calibration:
    """Of a cache that has no other records than these, two views a sample."""
    scope = Scope(2, len(logits), is_whole=True)
    return calibrate.fit(logits, request or CodecRequest(), scope=scope)


@pytest.mark.parametrize(
    ("scale", "offset", "name"),
    [
        (1.0, 0.0, "all-logits"),
        (100.0, 0.0, "all-logits"),
        (1e4, 0.0, "joint-sketch"),
        (1e6, 0.0, "joint-sketch"),
        (1e-8, 0.0, "joint-sketch"),
        (0.02, 3e3, "joint-sketch"),
    ],
)
def test_a_sketch_stays_where_float16_does_not_hold_the_logits(
    scale: float, offset: float, name: str
) -> None:
    logits = logits_of(10, 100, scale) + np.float32(offset)
    found = fitted(logits)
    assert found.codec.settings.name == name
    decoded = found.codec.decode(found.codec.encode(logits))
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
    ("scale", "offset", "is_alike"), [(1e-8, 0.0, False), (1e-7, 9.0, True), (0, 9, True)]
)
def test_small_logits_are_not_called_alike(scale: float, offset: float, is_alike: bool) -> None:
    logits = logits_of(100, 100, scale) + np.float32(offset)
    assert calibrate.fit(logits, CodecRequest(), "joint-sketch").section.is_alike is is_alike


def test_masks_do_not_count_as_large_logits() -> None:
    logits = logits_of(10, 100)
    logits[:, ::3] = -1e9
    assert fitted(logits).codec.settings.name == "all-logits"
    (told,) = (line for line in fitted(logits).told if line.startswith("masked classes"))
    assert told == (
        "masked classes: 34 of 100 in every view, 0 in some; they are stored like all others and decode to "
        "what the teacher said, not below -10000"
    )


def test_a_size_that_all_logits_would_break_keeps_the_sketch() -> None:
    logits = logits_of(10, 100)
    found = fitted(logits, CodecRequest(bytes_per_view=30))
    assert found.codec.settings.name == "joint-sketch"
    assert found.bytes_per_view <= 30
    assert any("10 records are few for a basis" in line and "--exact" in line for line in found.told)
    assert fitted(logits, CodecRequest(bytes_per_view=200)).codec.settings.name == "all-logits"
