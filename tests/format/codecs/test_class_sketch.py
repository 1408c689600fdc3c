"""The record of version 2: what it keeps, what it may lose, and where its numbers end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cache_builder.format import FormatError
from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.fields import log_sum_exp
from cache_builder.format.codecs.sketched import index_bits, pack_halves, unpack_halves
from tests.caches import Arrays, bound, fit_basis, synthetic_logits, with_centres

quickly = settings(deadline=None, max_examples=40)
CLASSES, RANK = 40, 9


def section(classes: int = CLASSES, **changes: object) -> ClassSketchSettings:
    fields = {
        "top_k": 4, "index_bits": index_bits(classes), "index_coding": "rank", "value_bits": 8,
        "value_step": 0.05, "tail_rank": RANK, "tail_wide": 1, "tail_bytes": 3, "tail_step": 0.25,
    }  # fmt: skip
    return ClassSketchSettings.model_validate(fields | changes)


def basis_for(logits: NDArray[np.float32], rank: int = RANK, step: float = 0.25) -> Arrays:
    """A PCA, and class centres that are the rounded means of the given logits."""
    return with_centres(fit_basis(logits, rank), logits, step)


def logits_of(rows: int = 50, classes: int = CLASSES, seed: int = 0) -> NDArray[np.float32]:
    return synthetic_logits(1, rows, classes, seed=seed)[0]


def roundtrip(logits: NDArray[np.float32], chosen: ClassSketchSettings, basis: Arrays) -> NDArray[np.float32]:
    return bound(chosen, basis).decode(bound(chosen, basis).encode(logits))


class TestTopK:
    @pytest.mark.parametrize("coding", ["rank", "class"])
    @pytest.mark.parametrize("top_k", [1, 4, 39])
    def test_within_half_a_step_or_put_in_order(self, top_k: int, coding: str) -> None:
        logits, chosen = logits_of(), section(top_k=top_k, index_coding=coding, value_bits=16)
        decoded = roundtrip(logits, chosen, basis_for(logits))
        order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
        live, found = (np.take_along_axis(values, order, axis=1) for values in (logits, decoded))
        # The order rule moves a value down by less than a step beyond what its neighbour was moved.
        assert (np.abs(found - live) <= chosen.value_step * (0.5 + 1.01 * np.arange(top_k))).all()
        assert (np.abs(found - live) <= 0.5 * chosen.value_step + 1e-5).mean() > 0.7

    @pytest.mark.parametrize("top_k", [2, 4, 39])
    def test_the_order_is_that_of_the_live_logits(self, top_k: int) -> None:
        logits = np.round(logits_of() * 4) / 4  # many equal ones
        chosen = section(top_k=top_k, value_bits=16)
        decoded = roundtrip(logits, chosen, basis_for(logits))
        order = np.argsort(-logits, axis=1, kind="stable")
        found = np.take_along_axis(decoded, order[:, :top_k], axis=1)
        assert (np.diff(found, axis=1) < 0).all()
        rest = np.take_along_axis(decoded, order[:, top_k:], axis=1)
        assert (rest < found[:, -1:]).all()
        np.testing.assert_array_equal(np.argsort(-decoded, axis=1)[:, :top_k], order[:, :top_k])

    def test_without_decoding_the_others(self) -> None:
        logits, chosen = logits_of(), section()
        basis = basis_for(logits)
        fields = bound(chosen, basis).encode(logits)
        stored = bound(chosen, basis).stored(fields)
        decoded = bound(chosen, basis).decode(fields)
        np.testing.assert_array_equal(stored.classes, np.argsort(-logits, axis=1, kind="stable")[:, :4])
        np.testing.assert_allclose(
            stored.values, np.take_along_axis(decoded, stored.classes, axis=1), atol=1e-5
        )

    def test_lse_gives_the_live_probabilities(self) -> None:
        logits, chosen = logits_of(), section()
        basis = basis_for(logits)
        stored = bound(chosen, basis).stored(bound(chosen, basis).encode(logits))
        live = logits.max(axis=1) - log_sum_exp(logits)
        np.testing.assert_allclose(stored.values[:, 0] - stored.lse, live, rtol=2**-10, atol=1e-6)

    @pytest.mark.parametrize("offset", [0.0, -1e4, 1e5])
    def test_lse_keeps_its_digits_where_the_teacher_is_sure_or_far_from_zero(self, offset: float) -> None:
        """A difference of two float32 numbers would be 0, or a multiple of their spacing."""
        logits = (3 * logits_of(200) + np.float32(offset)).astype(np.float32)
        found = bound(section(), basis_for(logits)).encode(logits)["lse_above"].astype(np.float64)
        exact = logits.astype(np.float64)
        others = np.sort(np.exp(exact - exact.max(axis=1, keepdims=True)), axis=1)[:, :-1].sum(axis=1)
        assert (others < 1e-6).any()
        # The spacing of float16 below 2^-14.
        np.testing.assert_allclose(found, np.log1p(others), rtol=2**-10, atol=2**-24)


class TestRanks:
    def test_places_are_small_where_the_class_is_usual(self) -> None:
        logits = logits_of(400)
        basis = basis_for(logits)
        fields = bound(section(), basis).encode(logits)
        by_class = bound(section(index_coding="class"), basis).encode(logits)
        np.testing.assert_array_equal(fields["topk_index"][:, 0], by_class["topk_index"][:, 0])
        assert fields["topk_index"][:, 1:].mean() < by_class["topk_index"][:, 1:].mean()

    def test_the_order_is_a_permutation_that_begins_with_the_class(self) -> None:
        usual = bound(section(), basis_for(logits_of())).ranking
        np.testing.assert_array_equal(np.sort(usual, axis=1), np.tile(np.arange(CLASSES), (CLASSES, 1)))
        np.testing.assert_array_equal(usual[:, 0], np.arange(CLASSES))

    def test_equal_scores_go_by_class_id(self) -> None:
        flat = Arrays(np.zeros(5, np.float32), np.zeros((1, 5), np.float32), np.zeros((5, 1), np.int16))
        codec = bound(section(5, tail_rank=1, tail_wide=1, tail_bytes=0, tail_step=1.0), flat)
        np.testing.assert_array_equal(codec.ranking[3], [3, 0, 1, 2, 4])

    def test_places_invert_it(self) -> None:
        codec = bound(section(), basis_for(logits_of()))
        usual, places = codec.ranking, codec.places
        back = np.take_along_axis(places, usual, axis=1)
        np.testing.assert_array_equal(back, np.tile(np.arange(CLASSES), (CLASSES, 1)))

    def test_depends_on_the_step(self) -> None:
        basis = basis_for(logits_of())
        first, other = (bound(section(tail_step=step), basis).ranking for step in (0.25, 25.0))
        assert (other != first).any()

    def test_a_place_beyond_the_classes_is_refused(self) -> None:
        logits, chosen = logits_of(), section()
        basis = basis_for(logits)
        fields = bound(chosen, basis).encode(logits)
        fields["topk_index"][3, 2] = CLASSES
        with pytest.raises(FormatError, match=f"class {CLASSES} of {CLASSES}"):
            bound(chosen, basis).decode(fields)


class TestTail:
    @pytest.mark.parametrize(("wide", "narrow"), [(0, 0), (0, 9), (9, 0), (2, 3), (1, 4), (0, 8)])
    def test_types_only_cut_off(self, wide: int, narrow: int) -> None:
        logits = logits_of()
        basis = basis_for(logits)
        roomy = roundtrip(logits, section(tail_wide=RANK, tail_bytes=0), basis)
        chosen = section(tail_wide=wide, tail_bytes=narrow)
        fields = bound(chosen, basis).encode(logits)
        decoded = bound(chosen, basis).decode(fields)
        if bound(chosen, basis).saturated(fields) == 0:
            np.testing.assert_array_equal(decoded, roomy)
        assert chosen.layout.record_bytes == 2 + 2 * wide + 4 + 4 + narrow + -(-(RANK - wide - narrow) // 2)

    def test_error_is_that_of_the_rounding(self) -> None:
        logits = logits_of(200)
        full = basis_for(logits, rank=CLASSES - 1)
        chosen = section(tail_rank=CLASSES - 1, tail_wide=CLASSES - 1, tail_bytes=0)
        error = roundtrip(logits, chosen, full) - logits
        assert np.sqrt(np.square(error).mean()) < 1.1 * chosen.tail_step / np.sqrt(12)

    def test_centres_change_what_is_stored_and_not_what_is_read(self) -> None:
        logits = logits_of(200)
        with_centres = basis_for(logits)
        none = np.zeros_like(with_centres.centres)
        without = Arrays(with_centres.mean, with_centres.basis, none)
        chosen = section(tail_wide=RANK, tail_bytes=0, index_coding="class")
        a, b = (bound(chosen, basis).encode(logits) for basis in (with_centres, without))
        assert np.abs(a["tail_coef_wide"]).mean() < 0.9 * np.abs(b["tail_coef_wide"]).mean()
        np.testing.assert_allclose(
            roundtrip(logits, chosen, with_centres), roundtrip(logits, chosen, without), atol=1e-5
        )

    @given(st.lists(st.integers(-7, 7), min_size=1, max_size=9))
    @quickly
    def test_halves_come_back(self, values: list[int]) -> None:
        coef = np.array([values, values[::-1]], np.int8)
        packed = pack_halves(coef)
        assert packed.shape == (2, -(-len(values) // 2))
        np.testing.assert_array_equal(unpack_halves(packed, len(values)), coef)

    def test_the_even_coefficient_is_in_the_low_half(self) -> None:
        assert pack_halves(np.array([[-7, 7, 0]], np.int8)).tolist() == [[0xF1, 0x88]]

    def test_saturated_numbers_are_counted(self) -> None:
        logits = logits_of()
        basis = basis_for(logits, step=1e-3)
        chosen = section(tail_step=1e-3, tail_wide=0, tail_bytes=0)
        assert bound(chosen, basis).saturated(bound(chosen, basis).encode(logits)) > 100
        roomy = section(tail_wide=RANK, tail_bytes=0, value_bits=16)
        assert bound(roomy, basis).saturated(bound(roomy, basis_for(logits)).encode(logits)) == 0


def test_a_basis_without_centres_is_refused() -> None:
    """Zeros in their place would decode to plausible, wrong logits."""
    logits, chosen = logits_of(), section()
    packed = chosen.layout.pack(bound(chosen, basis_for(logits)).encode(logits))
    with pytest.raises(FormatError, match="needs the array 'centres'"):
        bound(chosen, fit_basis(logits, RANK)).decode(chosen.layout.unpack(packed))


class TestOddLogits:
    @pytest.mark.parametrize("scale", [1e-30, 1e-3, 100.0, 1e4])
    def test_every_scale_is_finite(self, scale: float) -> None:
        logits = (logits_of() * np.float32(scale)).astype(np.float32)
        assert np.isfinite(roundtrip(logits, section(), basis_for(logits))).all()

    def test_constant_logits(self) -> None:
        logits = np.full((3, CLASSES), 2.5, np.float32)
        decoded = roundtrip(logits, section(), basis_for(logits_of()))
        assert np.isfinite(decoded).all()
        assert decoded.argmax(axis=1).tolist() == [0, 0, 0]
        assert (np.argsort(-decoded, axis=1)[:, :4] == np.arange(4)).all()

    def test_a_class_that_was_never_the_best(self) -> None:
        logits = logits_of()
        basis = basis_for(logits[logits.argmax(axis=1) != logits[0].argmax()])
        decoded = roundtrip(logits[:1], section(tail_wide=RANK, tail_bytes=0, value_bits=16), basis)
        assert decoded.argmax() == logits[0].argmax()

    def test_an_invalid_record_is_not_a_number_and_leaves_others_alone(self) -> None:
        logits, chosen = logits_of(5), section()
        basis = basis_for(logits_of())
        packed = chosen.layout.pack(bound(chosen, basis).encode(logits))
        before = bound(chosen, basis).decode(chosen.layout.unpack(packed))
        packed[2] = chosen.layout.pack(bound(chosen, basis).invalid(1))[0]
        after = bound(chosen, basis).decode(chosen.layout.unpack(packed))
        assert np.isnan(after[2]).all()
        np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
        fields = chosen.layout.unpack(packed)
        assert bound(chosen, basis).usable(fields).tolist() == [True, True, False, True, True]
        assert np.isnan(bound(chosen, basis).stored(fields).lse).tolist() == [
            False,
            False,
            True,
            False,
            False,
        ]

    def test_many_classes(self) -> None:
        logits = logits_of(20, classes=300)
        fields = bound(section(300), basis_for(logits)).encode(logits)
        assert fields["topk_index"].dtype == np.uint16
