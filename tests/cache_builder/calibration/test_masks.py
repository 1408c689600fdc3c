"""Laws of masked classes and of the byte budget."""

import numpy as np
import pytest

from cache_builder.calibration import calibrate
from cache_builder.format import codec
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
    packed = codec.pack(codec.encode(logits, found.codec, found.basis), found.codec)
    decoded = codec.decode(packed, found.codec, found.basis)
    assert (decoded[:, 1::2] == max(value, found.codec.masks.lowest)).all()
    np.testing.assert_allclose(np.square(decoded[:, ::2] - live).mean(), alone_error(live, alone), rtol=0.1)
    assert found.section.table == alone.section.table


def alone_error(live: np.ndarray, found: calibrate.Calibration) -> float:
    packed = codec.pack(codec.encode(live, found.codec, found.basis), found.codec)
    return float(np.square(codec.decode(packed, found.codec, found.basis) - live).mean())


def test_torch_encodes_masks_as_numpy_does() -> None:
    import torch

    logits = made(60)
    logits[:, 7], logits[::3, 11] = -np.inf, -1e9
    found = calibrate.fit(logits, CodecRequest())
    packed = RecordEncoder(found.codec, found.basis)(torch.from_numpy(logits)).numpy()
    decoded = codec.decode(packed, found.codec, found.basis)
    ours = codec.pack(codec.encode(logits, found.codec, found.basis), found.codec)
    np.testing.assert_allclose(decoded, codec.decode(ours, found.codec, found.basis), atol=0.3)
    assert np.isfinite(decoded).all()


def test_a_class_that_is_masked_no_more_is_no_record() -> None:
    logits = made(60)
    logits[:, 7] = -1e9
    found = calibrate.fit(logits, CodecRequest())
    with pytest.raises(DataError):
        codec.encode(made(60), found.codec, found.basis)


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
    exact = calibrate.is_exact(classes, request)
    found = calibrate.exact(classes, request) if exact else calibrate.fit(logits, request)
    taken = found.codec.top_k * 2 + 10 if exact else found.section.table[found.section.chosen].bytes_per_view
    assert (taken > 9) == any("--bytes-per-view 9 is missed" in line for line in found.told)
    assert exact or any("240 views" in line for line in found.told)


@pytest.mark.parametrize("classes", [10, 60])
def test_a_class_that_only_some_views_mask_gets_no_probability_back(classes: int) -> None:
    logits = np.random.default_rng(0).normal(size=(600, classes)).astype(np.float32)
    logits[::2, 3] = -1e9
    found = calibrate.fit(logits, CodecRequest(bytes_per_view=64.0))
    packed = codec.pack(codec.encode(logits, found.codec, found.basis), found.codec)
    decoded = codec.decode(packed, found.codec, found.basis)
    p = np.exp(decoded - decoded.max(axis=1, keepdims=True))
    assert (p[::2, 3] / p[::2].sum(axis=1)).max() < 1e-4
    assert np.square(decoded - logits)[1::2].mean() < 0.2
