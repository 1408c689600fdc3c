"""Codec ``joint-sketch`` in torch against NumPy: the same bits wherever sums are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.format import FormatError
from cache_builder.format.codecs.digits import WIDE, Digits
from cache_builder.format.codecs.joint_sketch import SAMPLE, VIEW, JointSketch
from cache_builder.tensors.decode import RecordDecoder
from cache_builder.tensors.encode import RecordEncoder
from cache_builder.tensors.joint_sketch import DigitsTwin
from tests.caches import synthetic_logits
from tests.format.joint import TOP_K, dyadic, eighths, fitted, joint, masked_codec

CLASSES = 40
CODEC = dyadic(CLASSES)


def assert_equal(found: Tensor, expected: NDArray[np.generic]) -> None:
    np.testing.assert_array_equal(found.numpy().view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))


def assert_same(codec: JointSketch, logits: NDArray[np.float32], views: int) -> NDArray[np.uint8]:
    """Records and what they decode to, to the bit; returns the records."""
    expected = codec.pack(codec.encode(logits, views))
    assert_equal(RecordEncoder(codec)(torch.from_numpy(logits), views), expected)
    assert_equal(RecordDecoder(codec)(torch.from_numpy(expected)), codec.decode(codec.unpack(expected)))
    return expected


@pytest.mark.parametrize("views", [1, 2, 8])
@pytest.mark.parametrize("classes", [41, 128])
def test_records_equal_the_reference_to_the_bit(views: int, classes: int) -> None:
    assert_same(dyadic(classes), eighths((64, classes)), views)


@given(
    logits=arrays(np.float32, (4, CLASSES), elements=st.integers(-8, 8).map(lambda n: n / 8)), data=st.data()
)
@settings(deadline=None, max_examples=60)
def test_so_do_those_of_logits_that_are_mostly_equal(
    logits: NDArray[np.float32], data: st.DataObject
) -> None:
    assert_same(CODEC, logits, data.draw(st.sampled_from([1, 2, 4])))


def test_classes_that_the_sketch_cannot_tell_apart() -> None:
    assert_same(joint(np.zeros(CLASSES, np.float32), np.full((6, CLASSES), 0.25)), eighths((50, CLASSES)), 2)


def test_many_classes_and_masks() -> None:
    """Keys of the order near the end of int64, and two classes that every record masks."""
    codec = masked_codec(12_000)
    logits = eighths((4, 12_000))
    logits[:, [3, 17]], logits[1, 5] = -np.inf, -1e9
    assert_same(codec, logits, 2)


def test_what_is_stored_already_is_encoded_with() -> None:
    logits = eighths((12, CLASSES))
    shared = CODEC.encode(logits, 4)[SAMPLE][::4]
    more = eighths((3, CLASSES), seed=5)
    expected = CODEC.pack(CODEC.encode(more, 1, {SAMPLE: shared}))
    found = RecordEncoder(CODEC)(torch.from_numpy(more), 1, {SAMPLE: torch.from_numpy(shared.copy())})
    assert_equal(found, expected)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_any_records_decode_to_the_same_bits(data: st.DataObject) -> None:
    """Also of integers that no encoder gives."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    codec = fitted(synthetic_logits(1, 60, CLASSES, seed=seed % 7)[0], finer=seed % 7)
    rng = np.random.default_rng(seed)
    fields = {}
    for name, digits in codec.digits.items():
        integers = rng.integers(-digits.limit, digits.limit + 1, (9, len(digits.limit)))
        if name == VIEW:
            integers[:, 0] = rng.integers(0, 5, 9) == 0
            first = 1 + codec.settings.view_rank
            integers[:, first : first + TOP_K] = rng.permuted(np.tile(np.arange(CLASSES), (9, 1)), axis=1)[
                :, :TOP_K
            ]
        fields[name] = digits.pack(integers)
    records = codec.pack(fields)
    assert_equal(RecordDecoder(codec)(torch.from_numpy(records)), codec.decode(codec.unpack(records)))


def test_ordinary_logits_give_nearly_the_same_records() -> None:
    """Where sums are rounded, a coefficient that is nearly a half may go the other way."""
    logits = synthetic_logits(1, 200, CLASSES)[0]
    codec = fitted(logits)
    found = codec.unpack(RecordEncoder(codec)(torch.from_numpy(logits), 2).numpy())
    for name, column in codec.encode(logits, 2).items():
        assert (found[name] == column).mean() > 0.99, name
    np.testing.assert_array_equal(
        codec.stored(found).classes, np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_is_marked(bad: float) -> None:
    logits = torch.from_numpy(eighths((4, CLASSES)))
    logits[1, 7] = bad
    fields = CODEC.unpack(RecordEncoder(CODEC)(logits, 2).numpy())
    assert CODEC.usable(fields).tolist() == [True, False, True, True]
    assert np.isnan(CODEC.decode(fields)).all(axis=1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("place", [-3, CLASSES])
def test_a_place_beyond_the_classes_is_refused(place: int) -> None:
    fields = CODEC.encode(eighths((4, CLASSES)))
    integers = CODEC.digits[VIEW].unpack(fields[VIEW])
    integers[2, 1 + CODEC.settings.view_rank] = place
    records = CODEC.pack(fields | {VIEW: CODEC.digits[VIEW].pack(integers)})
    with pytest.raises(FormatError, match=f"a place beyond the {CLASSES} classes"):
        RecordDecoder(CODEC)(torch.from_numpy(records))


def test_invalid_records_decode_to_nan_and_leave_others_alone() -> None:
    records = CODEC.pack(CODEC.encode(eighths((3, CLASSES))))
    records[1] = CODEC.pack(CODEC.invalid(1))
    decoded = RecordDecoder(CODEC)(torch.from_numpy(records))
    assert torch.isnan(decoded).all(dim=1).tolist() == [False, True, False]
    assert torch.isfinite(decoded[[0, 2]]).all()


def test_no_records() -> None:
    encoder, decoder = RecordEncoder(CODEC), RecordDecoder(CODEC)
    assert encoder(torch.zeros(0, CLASSES), 2).shape == (0, CODEC.layout.record_bytes)
    assert decoder(torch.zeros(0, CODEC.layout.record_bytes, dtype=torch.uint8)).shape == (0, CLASSES)
    assert decoder.state_dict() == {}


def test_autocast_around_it_changes_nothing() -> None:
    logits = torch.from_numpy(eighths((6, CLASSES)))
    encoder, decoder = RecordEncoder(CODEC), RecordDecoder(CODEC)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        records = encoder(logits, 2)
        dense = decoder(records)
    assert torch.equal(records, encoder(logits, 2))
    assert torch.equal(dense, decoder(records))


@given(
    values=st.lists(st.sampled_from([3, 5, 15, 63, 255, WIDE]), min_size=1, max_size=20),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_digits_equal_the_reference(values: list[int], seed: int) -> None:
    digits = Digits(tuple(values))
    twin = DigitsTwin(digits)
    integers = np.random.default_rng(seed).integers(-40_000, 40_000, (5, len(values)))
    packed = digits.pack(integers)
    np.testing.assert_array_equal(twin.pack(torch.from_numpy(integers)).numpy(), packed)
    np.testing.assert_array_equal(twin.unpack(torch.from_numpy(packed)).numpy(), digits.unpack(packed))
