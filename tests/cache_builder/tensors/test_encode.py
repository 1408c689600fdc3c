"""The encoder in torch against the NumPy reference codec."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cache_builder.format.codecs import Fields
from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.sketched import index_bits, joined_coefficients
from cache_builder.format.codecs.topk_tail import TopkTailSettings
from cache_builder.tensors.encode import RecordEncoder
from tests.caches import Arrays, bound

# Values that meet ties, subnormal numbers, both zeros and both ends of what a record can hold.
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-40, 30000.0, -30000.0, 2.5, 2.5000002]
LOGITS = st.one_of(st.sampled_from(SPECIAL), st.floats(-200, 200, width=32))


def parts(classes: int, top_k: int, rank: int, wide: int, step: float) -> tuple[TopkTailSettings, Arrays]:
    section = TopkTailSettings(
        top_k=top_k,
        index_bits=index_bits(classes),
        tail_rank=rank,
        tail_wide=wide,
        tail_step=step if rank else 0.0,
    )
    rng = np.random.default_rng(classes)
    orthonormal = (
        np.linalg.qr(rng.normal(size=(classes, classes)))[0][:rank] if rank else np.zeros((0, classes))
    )
    mean = rng.normal(size=classes)
    return section, Arrays(mean.astype(np.float32), orthonormal.astype(np.float32))


def encoded(logits: torch.Tensor, section: TopkTailSettings, basis: Arrays) -> Fields:
    records = RecordEncoder(bound(section, basis))(logits)
    assert records.dtype == torch.uint8
    return section.layout.unpack(records.numpy())


def assert_equal(
    found: Fields, logits: NDArray[np.float32], section: TopkTailSettings, basis: Arrays
) -> None:
    """To the bit but for sums: lse to its last digits, coefficients where they are not nearly a half."""
    expected = bound(section, basis).encode(logits)
    assert found.keys() == expected.keys()
    for name in ("topk_index", "topk_max", "topk_span", "topk_value"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    np.testing.assert_allclose(found["lse"], expected["lse"], rtol=1e-6, atol=1e-6)
    if not section.tail_rank:
        return
    exact = (logits.astype(np.float64) - basis.mean) @ basis.basis.T.astype(np.float64) / section.tail_step
    # float32 sums of C products: what their order can change.
    doubt = (
        1e-5 * np.abs(logits.astype(np.float64) - basis.mean).sum(axis=1, keepdims=True) / section.tail_step
    )
    sure = np.abs(np.abs(exact - np.floor(exact)) - 0.5) > doubt
    same = joined_coefficients(found) == joined_coefficients(expected)
    assert same[sure].all()
    assert (
        np.abs(joined_coefficients(found) - joined_coefficients(expected))[doubt[:, 0] < 0.5].max(initial=0)
        <= 1
    )


@given(
    logits=st.integers(2, 300).flatmap(lambda c: arrays(np.float32, (4, c), elements=LOGITS)),
    data=st.data(),
)
@settings(max_examples=150)
def test_equals_the_reference(logits: NDArray[np.float32], data: st.DataObject) -> None:
    classes = logits.shape[1]
    top_k = data.draw(st.integers(1, classes), label="top_k")
    rank = 0 if top_k == classes else data.draw(st.integers(1, min(12, classes - 1)), label="rank")
    wide = data.draw(st.integers(0, rank), label="wide")
    step = data.draw(st.sampled_from([0.05, 0.4, 1.0]), label="step")
    section, basis = parts(classes, top_k, rank, wide, step)
    assert_equal(encoded(torch.from_numpy(logits), section, basis), logits, section, basis)


@pytest.mark.parametrize("classes", [200, 256, 257, 1000, 70_000])
def test_every_width_of_class_ids(classes: int) -> None:
    logits = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    logits[0, -1] = 50
    section, basis = parts(classes, 5, 0, 0, 0)
    found = encoded(torch.from_numpy(logits), section, basis)
    assert found["topk_index"].dtype.itemsize * 8 == section.index_bits
    assert found["topk_index"][0, 0] == classes - 1
    assert_equal(found, logits, section, basis)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_their_float32_values(dtype: torch.dtype) -> None:
    """bf16 logits are often equal: order and choice are still those of the reference."""
    logits = (torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    section, basis = parts(300, 7, 8, 2, 0.3)
    as_float = logits.float().numpy()
    if dtype == torch.bfloat16:
        kth = np.sort(as_float, axis=1)[:, -7]
        assert ((as_float == kth[:, None]).sum(axis=1) > 1).any(), "no tie at the K-th place to test"
    assert_equal(encoded(logits, section, basis), as_float, section, basis)


def test_equal_logits_go_by_class_id() -> None:
    logits = torch.zeros(1, 40)
    logits[0, [30, 20]] = 1.0
    logits[0, 3] = -0.0
    section, basis = parts(40, 6, 0, 0, 0)
    assert encoded(logits, section, basis)["topk_index"].tolist() == [[20, 30, 0, 1, 2, 3]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 17, 39])
def test_a_row_that_is_not_finite_has_no_lse(bad: float, place: int) -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    logits[1, place] = bad
    section, basis = parts(40, 5, 4, 1, 0.5)
    lse = encoded(logits, section, basis)["lse"]
    assert np.isfinite(lse).tolist() == [True, False, True]
    assert np.isnan(lse[1])


def test_a_span_beyond_float16_is_infinite() -> None:
    logits = torch.zeros(2, 40)
    logits[0, 0] = 65504.0
    logits[1, 0] = 65505.0
    section, basis = parts(40, 5, 0, 0, 0)
    assert encoded(logits, section, basis)["topk_span"].tolist() == [65504.0, np.inf]


def test_coefficients_saturate() -> None:
    section, basis = parts(40, 5, 4, 2, 0.001)
    logits = torch.full((1, 40), 300.0) * torch.from_numpy(np.sign(basis.basis[3])) + 100 * torch.from_numpy(
        basis.basis[0]
    )
    found = encoded(logits, section, basis)
    assert np.abs(found["tail_coef"]).max() == 127
    assert np.abs(found["tail_coef_wide"]).max() == 32767


def test_autocast_around_it_changes_nothing() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    section, basis = parts(40, 5, 8, 1, 0.1)
    encoder = RecordEncoder(bound(section, basis))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(logits), encoder(logits))
        inside = encoder(logits)
    assert torch.equal(inside, encoder(logits))


def sketch_parts(
    classes: int,
    top_k: int,
    rank: int,
    wide: int,
    narrow: int,
    step: float,
    coding: str = "rank",
    bits: int = 8,
) -> tuple[ClassSketchSettings, Arrays]:
    _, basis = parts(classes, top_k, rank, 0, step)
    section = ClassSketchSettings.model_validate(
        {
            "top_k": top_k, "index_bits": index_bits(classes), "index_coding": coding, "value_bits": bits,
            "value_step": 0.05, "tail_rank": rank, "tail_wide": wide, "tail_bytes": narrow, "tail_step": step,
        }
    )  # fmt: skip
    centres = np.random.default_rng(1).integers(-40, 40, (classes, rank)).astype(np.int16)
    return section, Arrays(basis.mean, basis.basis, centres)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_sketch_equals_the_reference(data: st.DataObject) -> None:
    """The same classes, and logits that differ by no more than a coefficient rounded the other way."""
    classes = data.draw(st.integers(3, 300), label="classes")
    logits = data.draw(arrays(np.float32, (4, classes), elements=LOGITS), label="logits")
    logits = logits.clip(-1000, 1000)
    top_k = data.draw(st.integers(1, min(classes - 1, 8)), label="top_k")
    rank = data.draw(st.integers(1, min(12, classes - 1)), label="rank")
    wide = data.draw(st.integers(0, rank), label="wide")
    narrow = data.draw(st.integers(0, rank - wide), label="narrow")
    coding, bits = data.draw(st.sampled_from([("rank", 8), ("class", 16)]), label="coding")
    section, basis = sketch_parts(classes, top_k, rank, wide, narrow, 0.4, coding, bits)
    found = encoded(torch.from_numpy(logits), section, basis)
    expected = bound(section, basis).encode(logits)
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["topk_index"], expected["topk_index"])
    np.testing.assert_allclose(
        found["lse_above"].astype(np.float32),
        expected["lse_above"].astype(np.float32),
        rtol=2e-3,
        atol=2**-23,
    )
    a, b = (bound(section, basis).decode(fields) for fields in (found, expected))
    # One coefficient rounded the other way moves every class by at most a step.
    assert np.abs(a - b).max() <= 2 * section.tail_step + 1e-3 * np.abs(logits).max()


@pytest.mark.parametrize("coding", ["rank", "class"])
def test_a_sketch_of_real_sizes_equals_the_reference(coding: str) -> None:
    logits = np.random.default_rng(3).normal(size=(64, 500)).astype(np.float32) * 3
    section, basis = sketch_parts(500, 10, 33, 1, 12, 0.5, coding)
    found, expected = (
        encoded(torch.from_numpy(logits), section, basis),
        bound(section, basis).encode(logits),
    )
    for name, column in expected.items():
        assert (found[name] == column).mean() > 0.99, name


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_sketch_of_a_row_that_is_not_finite_is_marked(bad: float) -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    logits[1, 7] = bad
    section, basis = sketch_parts(40, 5, 6, 1, 2, 0.5)
    usable = bound(section, basis).usable(encoded(logits, section, basis))
    assert usable.tolist() == [True, False, True]


def test_autocast_around_a_sketch_changes_nothing() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    section, basis = sketch_parts(40, 5, 8, 1, 3, 0.1)
    encoder = RecordEncoder(bound(section, basis))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoder(logits)
    assert torch.equal(inside, encoder(logits))


def test_bf16_ties_of_a_sketch_go_by_class_id() -> None:
    logits = (torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) * 3).to(torch.bfloat16)
    section, basis = sketch_parts(300, 7, 8, 2, 3, 0.3)
    found = bound(section, basis).stored(encoded(logits, section, basis))
    expected = np.argsort(-logits.float().numpy(), axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(found.classes, expected)
