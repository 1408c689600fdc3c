"""The record of version 1: bounds that hold for any logits, and the edges where they nearly do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from cache_builder.format import DataError, FormatError
from cache_builder.format.codecs.sketched import index_bits
from cache_builder.format.codecs.topk_tail import TopkTailSettings, kth_logit, span_ceil16
from tests.caches import Arrays, bound, fit_basis, no_tail, synthetic_logits

quickly = settings(deadline=None, max_examples=60)


def exact_codec(classes: int) -> TopkTailSettings:
    return TopkTailSettings(
        top_k=classes, index_bits=index_bits(classes), tail_rank=0, tail_wide=0, tail_step=0.0
    )


def tail_codec(classes: int, top_k: int, rank: int, wide: int = 0, step: float = 0.2) -> TopkTailSettings:
    bits = index_bits(classes)
    return TopkTailSettings(top_k=top_k, index_bits=bits, tail_rank=rank, tail_wide=wide, tail_step=step)


def roundtrip(logits: NDArray[np.float32], section: TopkTailSettings, basis: Arrays) -> NDArray[np.float32]:
    return bound(section, basis).decode(bound(section, basis).encode(logits))


def half_step(logits: NDArray[np.float32], span: NDArray[np.float16]) -> NDArray[np.float64]:
    """The bound of FORMAT.md on |decoded - live| of a stored class, with float32 arithmetic's own error."""
    wide = span.astype(np.float64)[:, None]
    return wide / 510 + wide * 2.0**-20 + np.abs(logits).max(axis=1, keepdims=True) * 2.0**-22


@st.composite
def any_logits(draw: Callable[..., object], min_classes: int = 2) -> NDArray[np.float32]:
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=min_classes, max_side=12))
    limit = float(np.float32(draw(st.sampled_from([1e-40, 1e-7, 1.0, 80.0, 1e4, 32000.0]))))
    elements = st.floats(-limit, limit, width=32)  # type: ignore[arg-type]
    return draw(arrays(np.float32, shape, elements=elements))  # type: ignore[arg-type, return-value]


class TestExact:
    """K = C: no tail, every class within half a quantisation step."""

    @given(any_logits())
    @quickly
    def test_error_is_at_most_half_a_step(self, logits: NDArray[np.float32]) -> None:
        section = exact_codec(logits.shape[1])
        fields = bound(section, no_tail(logits.shape[1])).encode(logits)
        decoded = bound(section, no_tail(logits.shape[1])).decode(fields)
        assert (np.abs(decoded.astype(np.float64) - logits) <= half_step(logits, fields["topk_span"])).all()

    @given(any_logits())
    @quickly
    def test_the_largest_logit_is_exact(self, logits: NDArray[np.float32]) -> None:
        section = exact_codec(logits.shape[1])
        decoded = roundtrip(logits, section, no_tail(logits.shape[1]))
        best = logits.argmax(axis=1)
        rows = np.arange(len(logits))
        np.testing.assert_array_equal(decoded[rows, best], logits[rows, best])

    @pytest.mark.parametrize("classes", [2, 256, 257])
    def test_class_counts_around_the_index_types(self, classes: int) -> None:
        logits = synthetic_logits(1, 4, classes)[0]
        section = exact_codec(classes)
        fields = bound(section, no_tail(classes)).encode(logits)
        assert fields["topk_index"].dtype == (np.uint8 if classes <= 256 else np.uint16)
        np.testing.assert_array_equal(fields["topk_index"], np.argsort(-logits, axis=1, kind="stable"))
        assert (
            np.abs(roundtrip(logits, section, no_tail(classes)) - logits)
            <= half_step(logits, fields["topk_span"])
        ).all()


class TestTail:
    """K < C: stored classes within half a step, the others from the sketch, never above the K-th."""

    @given(any_logits(min_classes=4), st.integers(1, 3))
    @quickly
    def test_stored_classes_and_ceiling(self, logits: NDArray[np.float32], top_k: int) -> None:
        classes = logits.shape[1]
        section = tail_codec(classes, top_k, rank=1, step=0.5)
        basis = Arrays(np.zeros(classes, np.float32), np.eye(1, classes, dtype=np.float32))
        fields = bound(section, basis).encode(logits)
        decoded = bound(section, basis).decode(fields)
        stored = np.zeros(logits.shape, bool)
        np.put_along_axis(stored, fields["topk_index"].astype(np.int64), True, axis=1)
        most = np.broadcast_to(half_step(logits, fields["topk_span"]), logits.shape)
        assert (np.abs(decoded.astype(np.float64) - logits) <= most)[stored].all()
        assert (decoded <= kth_logit(fields)[:, None])[~stored].all()
        kth = np.take_along_axis(decoded, fields["topk_index"][:, -1:].astype(np.int64), axis=1)
        assert (decoded <= kth)[~stored].all()

    def test_sketch_reproduces_low_rank_logits(self) -> None:
        rng = np.random.default_rng(0)
        logits = (rng.normal(size=(50, 4)) @ rng.normal(size=(4, 30))).astype(np.float32)
        basis = fit_basis(logits, 4)
        section = tail_codec(30, top_k=2, rank=4, wide=4, step=0.01)
        error = np.abs(roundtrip(logits, section, basis) - logits)
        # Four coefficients, each off by at most half a step, along orthonormal vectors; and half a step of
        # the two stored logits.
        assert error.max() <= max(0.01, (logits.max() - logits.min()) / 510)

    def test_wide_coefficients_reach_beyond_int8(self) -> None:
        basis = Arrays(np.zeros(6, np.float32), np.eye(2, 6, k=4, dtype=np.float32))
        logits = np.array([[9, 8, 7, 6, -300, -100]], np.float32)
        decoded = roundtrip(logits, tail_codec(6, top_k=2, rank=2, wide=1, step=1.0), basis)
        np.testing.assert_allclose(decoded[0, 4:], [-300, -100], atol=1e-4)

    def test_coefficients_saturate_instead_of_wrapping(self) -> None:
        basis = Arrays(np.zeros(6, np.float32), np.eye(2, 6, k=4, dtype=np.float32))
        logits = np.array([[9, 8, 7, 6, -60000, -60000]], np.float32)
        decoded = roundtrip(logits, tail_codec(6, top_k=2, rank=2, wide=1, step=1.0), basis)
        np.testing.assert_array_equal(decoded[0, 4:], [-32767, -127])

    def test_more_than_65536_classes_need_32_bit_ids(self) -> None:
        classes = 65537
        logits = np.zeros((2, classes), np.float32)
        logits[0, -1], logits[1, 65535] = 3.0, 2.0
        basis = Arrays(np.zeros(classes, np.float32), np.eye(1, classes, dtype=np.float32))
        section = tail_codec(classes, top_k=2, rank=1)
        fields = bound(section, basis).encode(logits)
        assert fields["topk_index"].dtype == np.uint32
        assert fields["topk_index"][:, 0].tolist() == [65536, 65535]
        np.testing.assert_array_equal(roundtrip(logits, section, basis), logits)

    def test_rank_zero_leaves_the_mean_under_the_kth_logit(self) -> None:
        mean = np.array([0, 0, 0, -5, 5], np.float32)
        basis = Arrays(mean, np.zeros((0, 5), np.float32))
        section = TopkTailSettings(top_k=2, index_bits=8, tail_rank=0, tail_wide=0, tail_step=0.0)
        decoded = roundtrip(np.array([[3, 1, 0, 0, 0]], np.float32), section, basis)
        np.testing.assert_array_equal(decoded, [[3, 1, 0, -5, 1]])


class TestEdges:
    def test_equal_logits_are_ordered_by_class_and_decode_exactly(self) -> None:
        logits = np.full((3, 5), [[-80.0], [0.0], [1e4]], np.float32)
        section = exact_codec(5)
        fields = bound(section, no_tail(5)).encode(logits)
        np.testing.assert_array_equal(fields["topk_index"], np.tile(np.arange(5), (3, 1)))
        np.testing.assert_array_equal(fields["topk_span"], 0)
        np.testing.assert_array_equal(roundtrip(logits, section, no_tail(5)), logits)

    def test_extreme_logits_decode_finite(self) -> None:
        logits = np.array([[80, -80, 0], [1e4, -1e4, 5], [-80, -80, -1e4]], np.float32)
        decoded = roundtrip(logits, exact_codec(3), no_tail(3))
        assert np.isfinite(decoded).all()
        np.testing.assert_array_equal(decoded.argmax(axis=1), logits.argmax(axis=1))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_non_finite_logits_are_refused(self, bad: float) -> None:
        logits = np.array([[1, 2, bad]], np.float32)
        with pytest.raises(DataError, match="non-finite"):
            bound(exact_codec(3), no_tail(3)).encode(logits)

    @pytest.mark.parametrize("low", [-65505.0, -3e38])
    def test_a_span_beyond_float16_is_refused(self, low: float) -> None:
        high = -low if low < -1e38 else 0.0
        with pytest.raises(DataError, match="span"):
            bound(exact_codec(2), no_tail(2)).encode(np.array([[high, low]], np.float32))

    def test_the_largest_span_float16_holds_is_accepted(self) -> None:
        logits = np.array([[0, -65504]], np.float32)
        np.testing.assert_array_equal(roundtrip(logits, exact_codec(2), no_tail(2)), logits)

    def test_coefficients_beyond_float32_are_refused(self) -> None:
        basis = Arrays(np.zeros(4, np.float32), np.full((1, 4), 0.5, np.float32))
        logits = np.full((1, 4), 3e38, np.float32)
        with pytest.raises(DataError, match="overflow"):
            bound(tail_codec(4, top_k=1, rank=1), basis).encode(logits)

    def test_lse_is_the_log_sum_exp_of_all_classes(self) -> None:
        logits = synthetic_logits(1, 20, 60)[0] * 4
        basis = fit_basis(logits, 2)
        fields = bound(tail_codec(60, top_k=5, rank=2), basis).encode(logits)
        live = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
        np.testing.assert_allclose(fields["lse"], live, rtol=1e-6)

    @given(arrays(np.float32, st.integers(1, 20), elements=st.floats(0, 65504, width=32)))
    @quickly
    def test_the_span_is_rounded_up_to_the_next_float16(self, span: NDArray[np.float32]) -> None:
        rounded = span_ceil16(span)
        assert rounded.dtype == np.float16
        assert (rounded >= span).all()
        below = np.nextafter(rounded, np.float16(-1))
        assert ((below < span) | (rounded == 0)).all()

    def test_a_span_below_the_smallest_float16_becomes_it(self) -> None:
        tiny = np.array([1e-45, 1e-10, 0.0, 2.0**-24], np.float32)
        np.testing.assert_array_equal(
            span_ceil16(tiny), np.array([2.0**-24, 2.0**-24, 0, 2.0**-24], np.float16)
        )


class TestRecords:
    def test_invalid_records_decode_to_nan(self) -> None:
        section = tail_codec(6, top_k=2, rank=1)
        basis = Arrays(np.zeros(6, np.float32), np.eye(1, 6, dtype=np.float32))
        records = section.layout.pack(bound(section, basis).invalid(3))
        assert np.isnan(bound(section, basis).decode(section.layout.unpack(records))).all()
        assert np.isnan(section.layout.unpack(records)["lse"]).all()

    def test_pack_and_unpack_are_inverse(self) -> None:
        section = tail_codec(300, top_k=4, rank=5, wide=2)
        rng = np.random.default_rng(0)
        records = rng.integers(0, 256, (7, section.layout.record_bytes), dtype=np.uint8)
        np.testing.assert_array_equal(section.layout.pack(section.layout.unpack(records)), records)

    def test_no_records_are_fine(self) -> None:
        section, basis = exact_codec(3), no_tail(3)
        none = np.empty((0, section.layout.record_bytes), np.uint8)
        assert bound(section, basis).decode(section.layout.unpack(none)).shape == (0, 3)

    @pytest.mark.parametrize(
        "records",
        [np.zeros((2, 9), np.uint8), np.zeros(16, np.uint8), np.zeros((2, 16), np.int8)],
        ids=["width", "dimensions", "type"],
    )
    def test_records_of_another_shape_are_refused(self, records: NDArray[np.uint8]) -> None:
        assert exact_codec(3).layout.record_bytes == 16
        with pytest.raises(FormatError, match=r"expected records uint8 \[n, 16\]"):
            bound(exact_codec(3), no_tail(3)).decode(exact_codec(3).layout.unpack(records))

    def test_a_class_the_cache_does_not_have_is_refused(self) -> None:
        section = exact_codec(3)
        fields = bound(section, no_tail(3)).encode(np.zeros((1, 3), np.float32))
        records = section.layout.pack(fields | {"topk_index": np.array([[0, 1, 3]], np.uint8)})
        with pytest.raises(FormatError, match="names class 3 of 3"):
            bound(section, no_tail(3)).decode(section.layout.unpack(records))
