"""All logits in 16 bits: what rounding does to them, masks, and records of nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cache_builder.format import DataError, codecs
from cache_builder.format.codecs.all_logits import AllLogits, Half, upper_halves
from cache_builder.tensors.decode import RecordDecoder
from cache_builder.tensors.encode import RecordEncoder

CLASSES = 7
LOGITS = arrays(np.float32, (3, CLASSES), elements=st.floats(-4000, 4000, width=32))
KINDS: tuple[Half, ...] = ("float16", "bfloat16")
quickly = settings(deadline=None, max_examples=60)


def roundtrip(logits: NDArray[np.float32], kind: Half) -> NDArray[np.float32]:
    codec = AllLogits.of(logits.shape[1], kind)
    return codec.decode(codec.unpack(codec.pack(codec.encode(logits))))


@given(LOGITS)
@quickly
def test_float16_is_numpys_own(logits: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(roundtrip(logits, "float16"), logits.astype(np.float16).astype(np.float32))


@given(LOGITS)
@quickly
def test_bfloat16_is_rounded_as_torch_rounds(logits: NDArray[np.float32]) -> None:
    expected = torch.from_numpy(logits).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(roundtrip(logits, "bfloat16"), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_16_bits_already_loses_nothing(kind: Half) -> None:
    logits = np.random.default_rng(0).normal(size=(50, CLASSES)).astype(np.float32)
    once = roundtrip(logits, kind)
    np.testing.assert_array_equal(roundtrip(once, kind), once)


@pytest.mark.parametrize("kind", KINDS)
@given(LOGITS)
@quickly
def test_torch_does_the_same(kind: Half, logits: NDArray[np.float32]) -> None:
    codec = AllLogits.of(CLASSES, kind)
    packed = codec.pack(codec.encode(logits))
    ours = RecordEncoder(codec)(torch.from_numpy(logits))
    np.testing.assert_array_equal(ours.numpy(), packed)
    np.testing.assert_array_equal(RecordDecoder(codec)(ours).numpy(), codec.decode(codec.unpack(packed)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_masked_class_is_finite(kind: Half) -> None:
    logits = np.array([[1.0, 2.0, -np.inf], [3.0, -1e9, 0.0]], np.float32)
    decoded = roundtrip(logits, kind)
    assert (decoded[[0, 1], [2, 1]] < -9900).all()
    codec = AllLogits.of(3, kind)
    in_torch = RecordDecoder(codec)(RecordEncoder(codec)(torch.from_numpy(logits)))
    np.testing.assert_array_equal(in_torch.numpy(), decoded)


def test_too_large_for_float16() -> None:
    logits = np.array([[70000.0, 0.0]], np.float32)
    with pytest.raises(DataError, match="more than float16 holds"):
        AllLogits.of(2, "float16").encode(logits)
    assert roundtrip(logits, "bfloat16")[0, 0] == pytest.approx(70000, rel=2**-8)


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_records_are_nan(kind: Half) -> None:
    codec = AllLogits.of(3, kind)
    fields = codec.invalid(2)
    assert np.isnan(codec.decode(fields)).all()
    assert not codec.usable(fields).any()
    bad = RecordEncoder(codec)(torch.tensor([[1.0, float("nan"), 0.0]]))
    assert not codec.usable(codec.unpack(bad.numpy())).any()


def test_the_classes_come_largest_first() -> None:
    codec = AllLogits.of(4, "float16")
    stored = codec.stored(codec.encode(np.array([[0.0, 3.0, -1.0, 3.0]], np.float32)))
    assert stored.classes.tolist() == [[1, 3, 0, 2]]
    assert stored.values.tolist() == [[3.0, 3.0, 0.0, -1.0]]
    assert stored.lse[0] == pytest.approx(np.log(np.exp([0.0, 3, -1, 3]).sum()))


@pytest.mark.parametrize(("kind", "stored"), [("float16", "00 3c 00 c0"), ("bfloat16", "80 3f 00 c0")])
def test_the_bytes_of_format_md(kind: Half, stored: str) -> None:
    codec = AllLogits.of(2, kind)
    assert codec.pack(codec.encode(np.array([[1, -2]], np.float32))).tobytes() == bytes.fromhex(stored)
    assert f"`{stored}`" in (Path(codecs.__file__).parents[1] / "FORMAT.md").read_text()


def test_halves_are_rounded_to_even() -> None:
    values = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8], np.float32)
    found = (upper_halves(values).astype(np.uint32) << 16).view(np.float32)
    assert found.tolist() == [1.0, 1 + 2.0**-6, -1.0]
