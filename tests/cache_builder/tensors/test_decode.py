from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cache_builder.format import ConfigError, FormatError
from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.topk_tail import TopkTailSettings
from cache_builder.tensors.decode import RecordDecoder
from tests.caches import (
    Arrays,
    bound,
    fit_basis,
    no_tail,
    synthetic_codec,
    synthetic_fit,
    synthetic_logits,
    synthetic_manifest,
)


def encoded(classes: int, top_k: int, rank: int, wide: int, rows: int = 50) -> tuple[Any, np.ndarray]:
    """A codec and packed records uint8 [rows, record_bytes]."""
    logits = synthetic_logits(1, rows, classes)[0]
    codec = synthetic_fit(synthetic_codec(classes, top_k, rank, wide, sketch=False), logits)
    return codec, codec.pack(codec.encode(logits))


@pytest.mark.parametrize(
    ("classes", "top_k", "rank", "wide", "index_bits"),
    [
        (40, 5, 8, 2, 8),
        (40, 5, 8, 0, 8),
        (40, 5, 8, 8, 8),
        (256, 10, 16, 3, 8),
        (300, 5, 8, 2, 16),
        (65_537, 3, 4, 1, 32),
        (40, 40, 8, 2, 8),
        (300, 300, 8, 2, 16),
        (2, 1, 1, 0, 8),
        (2, 2, 1, 0, 8),
        (40, 5, 0, 0, 8),
    ],
)
def test_equals_the_reference(classes, top_k, rank, wide, index_bits):
    if rank == 0:
        codec, records = meanonly(classes, top_k)
    else:
        codec, records = encoded(classes, top_k, rank, wide)
    assert codec.settings.index_bits == index_bits
    expected = codec.decode(codec.unpack(records))
    decoded = RecordDecoder(codec)(torch.from_numpy(records))
    assert decoded.dtype == torch.float32
    np.testing.assert_allclose(decoded.numpy(), expected, rtol=0, atol=1e-5)


def meanonly(classes: int, top_k: int) -> tuple[Any, np.ndarray]:
    """Top K over the mean: no coefficients at all."""
    section = TopkTailSettings(top_k=top_k, index_bits=8, tail_rank=0, tail_wide=0, tail_step=0.0)
    logits = synthetic_logits(1, 20, classes)[0]
    arrays = no_tail(classes)
    arrays.mean[:] = logits.mean(axis=0)
    codec = bound(section, arrays)
    return codec, codec.pack(codec.encode(logits))


def sketched(classes: int, coding: str, packed: int, bits: int = 8) -> tuple[Any, np.ndarray]:
    """The same with class centres: rank 9, of which some coefficients are half bytes."""
    logits = synthetic_logits(1, 50, classes)[0]
    found = fit_basis(logits, 9)
    centres = np.random.default_rng(0).integers(-5, 5, (classes, 9)).astype(np.int16)
    section = ClassSketchSettings.model_validate(
        {
            "top_k": 4, "index_bits": 8 if classes <= 256 else 16, "index_coding": coding, "value_bits": bits,
            "value_step": 0.05, "tail_rank": 9, "tail_wide": 2, "tail_bytes": 7 - packed, "tail_step": 0.5,
        }
    )  # fmt: skip
    codec = bound(section, Arrays(found.mean, found.basis, centres))
    return codec, codec.pack(codec.encode(logits))


@pytest.mark.parametrize("packed", [0, 1, 4, 7])
@pytest.mark.parametrize(("classes", "bits"), [(40, 8), (40, 16), (300, 8)])
@pytest.mark.parametrize("coding", ["class", "rank"])
def test_a_sketch_equals_the_reference(classes, bits, coding, packed):
    codec, records = sketched(classes, coding, packed, bits)
    expected = codec.decode(codec.unpack(records))
    decoder, raw = RecordDecoder(codec), torch.from_numpy(records)
    np.testing.assert_allclose(decoder(raw).numpy(), expected, rtol=0, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decoder(raw), RecordDecoder(codec)(raw))
    assert decoder(raw[:0]).shape == (0, classes)
    assert decoder(raw[:1]).shape == (1, classes)
    assert decoder.state_dict() == {}


def test_invalid_records_of_a_sketch_decode_to_nan_and_leave_others_alone():
    codec, records = sketched(40, "rank", 4)
    invalid = codec.pack(codec.invalid(2))
    decoded = RecordDecoder(codec)(torch.from_numpy(np.concatenate([records[:1], invalid, records[1:2]])))
    assert torch.isnan(decoded).all(dim=1).tolist() == [False, True, True, False]
    assert torch.isfinite(decoded[[0, 3]]).all()


@pytest.mark.parametrize("place", [0, 2])
def test_a_sketch_with_a_class_beyond_the_last_is_refused(place):
    codec, records = sketched(40, "rank", 4)
    start = next(f.offset for f in RecordDecoder(codec).layout.fields if f.name == "topk_index")
    damaged = records.copy()
    damaged[0, start + place] = 200
    with pytest.raises(FormatError, match="class 200 of 40"):
        RecordDecoder(codec)(torch.from_numpy(damaged))


def test_invalid_records_decode_to_nan_and_leave_others_alone():
    codec, records = encoded(40, 5, 8, 2)
    invalid = codec.pack(codec.invalid(2))
    decoded = RecordDecoder(codec)(torch.from_numpy(np.concatenate([records[:1], invalid, records[1:2]])))
    assert torch.isnan(decoded).all(dim=1).tolist() == [False, True, True, False]
    assert torch.isfinite(decoded[[0, 3]]).all()


def test_autocast_does_not_lower_the_precision():
    codec, records = encoded(40, 5, 8, 2)
    decoder, raw = RecordDecoder(codec), torch.from_numpy(records)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = decoder(raw)
    assert torch.equal(lowered, decoder(raw))


def test_tf32_around_it_does_not_lower_the_precision(monkeypatch):
    seen = []

    def addmm(*arguments, run=torch.addmm):
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return run(*arguments)

    codec, records = sketched(40, "rank", 4)
    monkeypatch.setattr(torch, "addmm", addmm)
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        RecordDecoder(codec)(torch.from_numpy(records))
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert seen == ["ieee"]


def test_a_batch_decodes_like_its_parts():
    codec, records = encoded(300, 5, 8, 2)
    decoder, raw = RecordDecoder(codec), torch.from_numpy(records)
    parts = torch.cat([decoder(raw[:1]), decoder(raw[1:7]), decoder(raw[7:])])
    torch.testing.assert_close(decoder(raw), parts, rtol=0, atol=1e-5)
    assert decoder(raw[:0]).shape == (0, 300)


def test_carries_no_state_of_its_own():
    codec, _ = encoded(40, 5, 8, 2)
    assert RecordDecoder(codec).state_dict() == {}


@pytest.mark.parametrize("shape", [(3,), (3, 10), (1, 3, 30)])
def test_records_of_another_length_are_refused(shape):
    codec, _ = encoded(40, 5, 8, 2)
    with pytest.raises(FormatError, match=r"expected records uint8 \[n, \d+\]"):
        RecordDecoder(codec)(torch.zeros(shape, dtype=torch.uint8))


def test_a_class_beyond_the_last_is_refused():
    codec, records = encoded(40, 5, 8, 2)
    start = next(f.offset for f in RecordDecoder(codec).layout.fields if f.name == "topk_index")
    damaged = records.copy()
    damaged[0, start] = 200
    with pytest.raises(FormatError, match="class 200 of 40"):
        RecordDecoder(codec)(torch.from_numpy(damaged))


def test_a_manifest_is_refused_and_the_codec_named():
    with pytest.raises(ConfigError, match=r"takes a codec, got Manifest: use TeacherCache.open\(url\).codec"):
        RecordDecoder(synthetic_manifest())
