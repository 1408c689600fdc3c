"""Laws of masked classes and of the byte budget."""

import numpy as np
import pytest

from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Calibration, Scope
from cache_builder.calibration.topk_tail import is_exact, nothing_lost
from cache_builder.format.errors import DataError
from cache_builder.format.manifest import CodecRequest
from cache_builder.tensors.encode import RecordEncoder

MASKS = (-1e4, -1e9, float(np.finfo(np.float32).min), -np.inf)


def made(classes: int, pairs: int = 240) -> np.ndarray:
    draw = np.random.default_rng(3)
    return (draw.normal(size=(pairs, 8)) @ draw.normal(size=(8, classes))).astype(np.float32)


@pytest.mark.parametrize("value", MASKS)
@pytest.mark.parametrize("classes", [10, 60])
def test_masked_classes_stay_masked_and_cost_nothing(classes: int, value: float) -> None:
    live = made(classes // 2)
    logits = np.full((len(live), classes), value, np.float32)
    logits[:, ::2] = live
    request = CodecRequest()
    found, alone = calibrate.fit(logits, request), calibrate.fit(live, request)
    packed = found.codec.pack(found.codec.encode(logits))
    decoded = found.codec.decode(found.codec.unpack(packed))
    assert (decoded[:, 1::2] == max(value, found.codec.settings.masks.lowest)).all()
    np.testing.assert_allclose(np.square(decoded[:, ::2] - live).mean(), alone_error(live, alone), rtol=0.1)
    assert found.section.table == alone.section.table


@pytest.mark.parametrize(
    ("live", "lose", "name"),
    [(28, None, "topk-tail"), (28, 0.1, "joint-sketch"), (3, 0.1, "joint-sketch"), (2, 0.1, "topk-tail")],
)
def test_few_classes_beside_masked_ones_are_sketched_where_something_may_be_lost(
    live: int, lose: float | None, name: str
) -> None:
    logits = np.full((240, 200), -np.inf, np.float32)
    logits[:, :live] = made(live)
    found = calibrate.fit(logits, CodecRequest(lose=lose), scope=Scope(2, 100_000))
    assert found.codec.settings.name == name
    assert found.bytes_per_view <= 12 + 2 * live
    said = nothing_lost(lose, found)
    assert bool(said) == (lose is not None and name == "topk-tail")
    assert all(
        "each of the 2 classes that the teacher does not mask is stored by itself" in line for line in said
    )


def alone_error(live: np.ndarray, found: Calibration) -> float:
    packed = found.codec.pack(found.codec.encode(live))
    return float(np.square(found.codec.decode(found.codec.unpack(packed)) - live).mean())


def test_torch_encodes_masks_as_numpy_does() -> None:
    import torch

    logits = made(60)
    logits[:, 7], logits[::3, 11] = -np.inf, -1e9
    found = calibrate.fit(logits, CodecRequest())
    packed = RecordEncoder(found.codec)(torch.from_numpy(logits)).numpy()
    decoded = found.codec.decode(found.codec.unpack(packed))
    ours = found.codec.pack(found.codec.encode(logits))
    np.testing.assert_allclose(decoded, found.codec.decode(found.codec.unpack(ours)), atol=0.3)
    assert np.isfinite(decoded).all()


def test_a_class_that_is_masked_no_more_is_no_record() -> None:
    logits = made(60)
    logits[:, 7] = -1e9
    found = calibrate.fit(logits, CodecRequest())
    with pytest.raises(DataError):
        found.codec.encode(made(60))


def test_more_bytes_never_choose_a_less_faithful_record() -> None:
    logits = made(100)
    logits += np.random.default_rng(4).normal(size=logits.shape).astype(np.float32)
    chosen = [calibrate.fit(logits, CodecRequest(bytes_per_view=b)).section for b in (16, 24, 31, 40, 57)]
    cosines = [section.table[section.chosen].gradient_cosine for section in chosen]
    assert cosines == sorted(cosines)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_a_budget_is_kept_or_its_miss_is_told(classes: int) -> None:
    request = CodecRequest(bytes_per_view=9.0)
    logits = made(classes)
    exact = is_exact(classes, request)
    found = calibrate.unfitted(classes, request) or calibrate.fit(logits, request)
    point = found.section.table[found.section.chosen or 0] if not exact else None
    taken = found.codec.settings.top_k * 2 + 10 if point is None else point.bytes_per_view
    assert (taken > 9) == any("--bytes-per-view 9 is missed" in line for line in found.told)
    assert exact or any("240 views" in line for line in found.told)


@pytest.mark.parametrize("classes", [10, 60])
def test_a_class_that_only_some_views_mask_gets_no_probability_back(classes: int) -> None:
    logits = np.random.default_rng(0).normal(size=(600, classes)).astype(np.float32)
    logits[::2, 3] = -1e9
    found = calibrate.fit(logits, CodecRequest(bytes_per_view=64.0))
    packed = found.codec.pack(found.codec.encode(logits))
    decoded = found.codec.decode(found.codec.unpack(packed))
    p = np.exp(decoded - decoded.max(axis=1, keepdims=True))
    assert (p[::2, 3] / p[::2].sum(axis=1)).max() < 1e-4
    assert np.square(decoded - logits)[1::2].mean() < 0.2
