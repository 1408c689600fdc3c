"""The record that views share a part of: what it keeps, what it may lose, and where its numbers end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cache_builder.format import CODECS, DataError, FormatError
from cache_builder.format.codecs.digits import WIDE, Digits
from cache_builder.format.codecs.fields import log_sum_exp, stored_first
from cache_builder.format.codecs.joint_sketch import SAMPLE, VIEW, JointSketch
from cache_builder.format.codecs.masking import LOWEST, MaskSection
from tests.caches import synthetic_logits
from tests.format.joint import TOP_K, eighths, fitted, joint, joint_settings, masked_codec

CLASSES, VIEWS = 40, 3
COMMON = synthetic_logits(1, 30, CLASSES, seed=1)[0][:, None]
# The views of a sample follow each other.
LOGITS = (COMMON + 0.15 * synthetic_logits(30, VIEWS, CLASSES)).reshape(-1, CLASSES).astype(np.float32)
CODEC = fitted(LOGITS)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-40, 2.5, 2.5000002, 30000.0, -4999.0]
ANY = st.one_of(st.sampled_from(SPECIAL), st.floats(-20, 20, width=32))


class TestTopK:
    @pytest.mark.parametrize("views", [1, VIEWS])
    def test_the_classes_are_those_of_the_live_logits_in_order(self, views: int) -> None:
        fields = CODEC.encode(LOGITS, views)
        live = np.argsort(-LOGITS, axis=1, kind="stable")
        np.testing.assert_array_equal(CODEC.stored(fields).classes, live[:, :TOP_K])
        found = np.argsort(-CODEC.decode(fields), axis=1, kind="stable")
        np.testing.assert_array_equal(found[:, :TOP_K], live[:, :TOP_K])

    def test_their_values_are_within_half_a_step_or_put_in_order(self) -> None:
        decoded = CODEC.decode(CODEC.encode(LOGITS, VIEWS))
        top = stored_first(LOGITS, TOP_K)
        off = np.abs(np.take_along_axis(decoded - LOGITS, top, axis=1))
        step = CODEC.settings.value_step
        assert (off <= step * (0.5 + 1.01 * np.arange(TOP_K))).all()
        assert (off <= 0.5 * step + 1e-5).mean() > 0.6

    @given(arrays(np.float32, (4, CLASSES), elements=ANY))
    @settings(deadline=None, max_examples=150)
    def test_the_places_are_exact_whatever_the_logits(self, logits: NDArray[np.float32]) -> None:
        """Encoder and decoder name the same classes, also where the sketch has nothing to do with them."""
        fields = CODEC.encode(logits, 2)
        stored = CODEC.stored(CODEC.unpack(CODEC.pack(fields)))
        np.testing.assert_array_equal(stored.classes, stored_first(logits, TOP_K))
        assert np.isfinite(CODEC.decode(fields)).all()

    def test_classes_that_the_sketch_cannot_tell_apart_go_by_class_id(self) -> None:
        """Equal columns of the basis: every value of the sketch is one that many classes have."""
        codec = joint(np.zeros(CLASSES, np.float32), np.full((6, CLASSES), 0.25))
        logits = eighths((200, CLASSES))
        fields = codec.encode(logits)
        np.testing.assert_array_equal(codec.stored(fields).classes, stored_first(logits, TOP_K))
        # Then the place of a class in the order is its number.
        np.testing.assert_array_equal(codec.integers(fields).places, stored_first(logits, TOP_K))

    def test_logits_one_float_apart(self) -> None:
        logits = np.repeat(LOGITS[:20], 3, axis=0)
        logits[1::3] = np.nextafter(logits[1::3], np.float32(np.inf))
        logits[2::3] = np.nextafter(logits[2::3], np.float32(-np.inf))
        np.testing.assert_array_equal(
            CODEC.stored(CODEC.encode(logits, 3)).classes, stored_first(logits, TOP_K)
        )

    @pytest.mark.parametrize("top_k", [1, 39])
    def test_one_class_and_all_but_one(self, top_k: int) -> None:
        changes = {
            "top_k": top_k,
            "view_values": [(1, 3), (2, 31), (2, 5), (top_k, 255), (top_k, 255)],
        }
        codec = fitted(LOGITS, **changes)
        stored = codec.stored(codec.encode(LOGITS, VIEWS))
        np.testing.assert_array_equal(stored.classes, stored_first(LOGITS, top_k))

    def test_no_other_class_reaches_them(self) -> None:
        logits = LOGITS.round()
        decoded = CODEC.decode(CODEC.encode(logits, VIEWS))
        top = stored_first(logits, TOP_K)
        last = np.take_along_axis(decoded, top, axis=1)[:, -1:]
        rest = decoded.copy()
        np.put_along_axis(rest, top, -np.inf, axis=1)
        assert (rest < last).all()

    def test_lse_is_that_of_the_decoded_logits(self) -> None:
        fields = CODEC.encode(LOGITS, VIEWS)
        np.testing.assert_allclose(CODEC.stored(fields).lse, log_sum_exp(CODEC.decode(fields)), rtol=1e-6)


class TestSketch:
    def test_near_the_live_logits(self) -> None:
        decoded = CODEC.decode(CODEC.encode(LOGITS, VIEWS))
        lost = np.square(decoded - LOGITS).sum() / np.square(LOGITS - LOGITS.mean(axis=0)).sum()
        assert lost < 0.3

    def test_views_that_are_equal_need_nothing_of_their_own(self) -> None:
        logits = np.repeat(LOGITS[::VIEWS], VIEWS, axis=0)
        found = CODEC.integers(CODEC.encode(logits, VIEWS))
        assert (found.own[:, 2:] == 0).mean() > 0.9

    def test_what_views_share_is_equal_in_all_of_them(self) -> None:
        shared = CODEC.encode(LOGITS, VIEWS)[SAMPLE].reshape(-1, VIEWS, CODEC.layout.fields[0].count)
        assert (shared == shared[:, :1]).all()
        assert len(np.unique(shared[:, 0], axis=0)) > 20

    def test_encoding_with_what_is_stored_gives_the_same(self) -> None:
        fields = CODEC.encode(LOGITS, VIEWS)
        again = CODEC.encode(LOGITS, VIEWS, {SAMPLE: fields[SAMPLE]})
        for name, column in fields.items():
            np.testing.assert_array_equal(again[name], column)

    def test_another_view_is_encoded_with_what_the_older_ones_share(self) -> None:
        first = CODEC.encode(LOGITS, VIEWS)[SAMPLE][::VIEWS]
        views = LOGITS[::VIEWS] + np.float32(0.25)
        fields = CODEC.encode(views, 1, {SAMPLE: first})
        np.testing.assert_array_equal(fields[SAMPLE], first)
        np.testing.assert_array_equal(CODEC.stored(fields).classes, stored_first(views, TOP_K))

    def test_views_alone_have_what_is_finer_of_their_own(self) -> None:
        lost = []
        for views in (1, VIEWS):
            decoded = CODEC.decode(CODEC.encode(LOGITS, views))
            lost.append(float(np.square(decoded - LOGITS).sum()))
        assert lost[0] < lost[1]

    def test_sums_are_exact_at_the_ends_of_their_digits(self) -> None:
        """Integers below 2^53, also times the largest basis there is."""
        codec = joint(np.zeros(CLASSES, np.float32), np.full((6, CLASSES), 7.99), finer=6)
        common = np.full((1, 6), 32767, np.int64)
        own = np.full((1, 4), 32767, np.int64)
        expected = (6 * 32767 + 4 * 32767 * 64) * round(7.99 * 4096)
        assert codec.sketched(common, own)[0].tolist() == [expected] * CLASSES

    def test_the_basis_is_converted_once(self) -> None:
        codec = fitted(LOGITS)
        codec.encode(LOGITS[:2], 2)
        first = codec.integer_basis
        codec.encode(LOGITS[2:4], 2)
        assert codec.integer_basis is first

    def test_coefficients_at_the_end_of_their_digits_are_counted(self) -> None:
        fields = CODEC.encode(LOGITS, VIEWS)
        assert CODEC.saturated(fields) < 0.01 * 10 * len(LOGITS)
        fine = CODEC.changed(step=1e-4)
        assert fine.saturated(fine.encode(LOGITS, VIEWS)) > 0.6 * 10 * len(LOGITS)
        # Digits of few values are cut off now and then, which says nothing; residuals are counted.
        narrow = CODEC.changed(sample_values=((6, 3),), step=1e-4)
        own = narrow.encode(LOGITS, VIEWS)
        assert narrow.saturated(own) <= (2 + TOP_K) * len(LOGITS)


class TestInvalid:
    def test_is_not_a_number_and_leaves_others_alone(self) -> None:
        packed = CODEC.pack(CODEC.encode(LOGITS[:6], 2))
        before = CODEC.decode(CODEC.unpack(packed))
        packed[2:4] = CODEC.pack(CODEC.invalid(2))
        fields = CODEC.unpack(packed)
        after = CODEC.decode(fields)
        assert np.isnan(after).all(axis=1).tolist() == [False, False, True, True, False, False]
        np.testing.assert_array_equal(np.delete(after, [2, 3], 0), np.delete(before, [2, 3], 0))
        assert CODEC.usable(fields).tolist() == [True, True, False, False, True, True]
        assert np.isnan(CODEC.stored(fields).lse).tolist() == [False, False, True, True, False, False]

    def test_zeros_are_no_valid_record(self) -> None:
        zeros = CODEC.unpack(np.zeros((2, CODEC.layout.record_bytes), np.uint8))
        assert CODEC.usable(zeros).tolist() == [False, False]

    def test_whether_it_is_valid_is_told_without_its_other_integers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fields = CODEC.encode(LOGITS[:4], 2)

        def unpack(self: Digits, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
            raise AssertionError("all integers of a record were unpacked")

        monkeypatch.setattr(Digits, "unpack", unpack)
        assert CODEC.usable(fields).all()

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_logits_that_are_not_finite_are_refused(self, bad: float) -> None:
        logits = LOGITS.copy()
        logits[3, 7] = bad
        with pytest.raises(DataError, match="non-finite"):
            CODEC.encode(logits, VIEWS)

    def test_logits_that_overflow_are_refused(self) -> None:
        with pytest.raises(DataError, match="overflow float32"):
            CODEC.encode(np.full((1, CLASSES), 3e38, np.float32))

    @pytest.mark.parametrize("place", [-1, CLASSES, 120])
    def test_a_place_beyond_the_classes_is_refused(self, place: int) -> None:
        fields = CODEC.encode(LOGITS, VIEWS)
        integers = CODEC.digits[VIEW].unpack(fields[VIEW])
        integers[5, 1 + CODEC.settings.view_rank + 2] = place
        fields[VIEW] = CODEC.digits[VIEW].pack(integers)
        for read in (CODEC.decode, CODEC.stored):
            with pytest.raises(FormatError, match=f"a place beyond the {CLASSES} classes"):
                read(fields)

    def test_no_records(self) -> None:
        fields = CODEC.encode(LOGITS[:0], VIEWS)
        assert CODEC.decode(fields).shape == (0, CLASSES)
        assert CODEC.stored(fields).classes.shape == (0, TOP_K)


class TestMasks:
    @pytest.mark.parametrize("classes", [40, 12_000])
    def test_constants_stay_and_no_place_is_theirs(self, classes: int) -> None:
        codec, logits = masked_codec(classes), eighths((12, classes))
        logits[:, [3, 17]] = -np.inf
        logits[::4, 5] = -1e9
        fields = codec.encode(logits, 3)
        decoded = codec.decode(fields)
        assert (decoded[:, [3, 17]] == LOWEST).all()
        assert np.isfinite(decoded).all()
        raised = np.where(np.isneginf(logits) | (logits < -5000), np.float32(-20), logits)
        raised[:, [3, 17]] = LOWEST
        np.testing.assert_array_equal(codec.stored(fields).classes, stored_first(raised, TOP_K))
        # In the order of the sketch they come last, so that they take no place from others.
        sketched = codec.sketched(*(np.zeros((1, r), np.int64) for r in (6, 4)))
        keys = np.arange(classes) - sketched[0] * classes
        assert set(np.argsort(keys)[-2:].tolist()) == {3, 17}

    def test_the_manifest_has_the_key_only_then(self) -> None:
        assert "masks" not in joint_settings().model_dump(mode="json")
        assert masked_codec(40).settings.model_dump(mode="json")["masks"]["classes"] == 2

    def test_a_mask_that_calibration_did_not_see(self) -> None:
        logits = LOGITS[:2].copy()
        logits[1, 4] = -1e9
        assert CODEC.without_place(logits).tolist() == [False, True]
        assert masked_codec(40).without_place(logits).tolist() == [False, False]

    def test_classes_that_were_left_out_come_back_as_constants(self) -> None:
        left = np.ones(42, bool)
        left[[3, 17]] = False
        constants = np.full(42, LOWEST, np.float32)
        section = MaskSection(classes=2, lowest=LOWEST, floor=-20.0)
        wide = CODEC.widened(left, constants, {"masks": section})
        logits = np.full((len(LOGITS), 42), -np.inf, np.float32)
        logits[:, left] = LOGITS
        decoded = wide.decode(wide.encode(logits, VIEWS))
        np.testing.assert_array_equal(decoded[:, left], CODEC.decode(CODEC.encode(LOGITS, VIEWS)))


class TestBlocks:
    @pytest.mark.parametrize("name", [SAMPLE, VIEW])
    @pytest.mark.parametrize("rows", [1, 17, 90])
    def test_a_block_comes_back(self, name: str, rows: int) -> None:
        column = CODEC.encode(LOGITS, VIEWS)[name][:rows]
        block = CODEC.coded(name, column)
        assert abs(CODEC.coded_size(name, column) - len(block)) < 24
        for rest in (b"", b"\0" * 50):
            np.testing.assert_array_equal(CODEC.uncoded(name, block + rest, rows), column)

    def test_one_that_does_not_shrink_is_stored_as_it_is(self) -> None:
        digits = CODEC.digits[VIEW]
        random = np.random.default_rng(0).integers(-digits.limit, digits.limit + 1, (50, len(digits.limit)))
        column = digits.pack(random)
        block = CODEC.coded(VIEW, column)
        assert block == b"\1" + column.tobytes()
        np.testing.assert_array_equal(CODEC.uncoded(VIEW, block + b"\0\0", 50), column)
        assert CODEC.coded_size(VIEW, column) == len(block)

    @pytest.mark.parametrize("block", [b"", b"\0", b"\1", b"\1" + b"\0" * 30, b"\0" * 7])
    def test_one_that_ends_early_is_refused(self, block: bytes) -> None:
        with pytest.raises(FormatError, match="a block of records"):
            CODEC.uncoded(VIEW, block, 17)

    def test_one_of_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(FormatError, match="begins with 02, expected 00 or 01"):
            CODEC.uncoded(VIEW, b"\2" + b"\0" * 999, 17)

    def test_tables_that_are_no_frequencies_are_refused(self) -> None:
        arrays = {**CODEC.arrays, "view_tables": CODEC.arrays["view_tables"] + 1}
        damaged = JointSketch(CODEC.settings, CLASSES, arrays)
        with pytest.raises(FormatError, match="frequencies"):
            damaged.coded(VIEW, CODEC.encode(LOGITS, VIEWS)[VIEW])


VALUES = [(1, 3), (2, 31), (2, 5), (TOP_K, 255), (TOP_K, 255)]


@pytest.mark.parametrize(
    ("changes", "classes", "problem"),
    [
        ({"top_k": 40, "view_values": [(1, 3), (4, 5), (80, 255)]}, 40, "top_k must be below the width 40"),
        ({"rank": 41, "sample_values": [(41, 3)]}, 40, "codec.rank not above it"),
        ({"view_values": [(1, 3), (5, 255)]}, 40, "view_values are fewer than codec.top_k needs"),
        ({"view_values": [*VALUES[:3], (TOP_K, WIDE), (TOP_K, 255)]}, 32769, "up to 32768 classes"),
        ({"rank": 7}, 40, "do not fit codec.rank and codec.top_k"),
        ({"sample_values": []}, 40, "do not fit codec.rank and codec.top_k"),
        ({"sample_values": [(6, 4)]}, 40, "must be odd, from 3 to 255, or 65535"),
        ({"sample_values": [(6, 257)]}, 40, "must be odd, from 3 to 255, or 65535"),
        ({"sample_values": [(7, 3), (-1, 3)]}, 40, "must be odd, from 3 to 255, or 65535"),
        ({}, 129, "no room for a place among all classes"),
        ({"view_values": [*VALUES[:3], (TOP_K, 255), (TOP_K, 127)]}, 40, "or for a residual"),
    ],
)
def test_numbers_that_do_not_fit_are_told(changes: dict[str, object], classes: int, problem: str) -> None:
    found = list(joint_settings(**changes).problems(classes))
    assert any(problem in line for line in found), found


def test_those_that_fit_have_no_problems() -> None:
    assert list(joint_settings().problems(40)) == []
    assert list(joint_settings().problems(128)) == []
    wide = joint_settings(view_values=[*VALUES[:3], (TOP_K, WIDE), (TOP_K, 255)])
    assert list(wide.problems(32768)) == []


def test_the_settings_are_what_json_says() -> None:
    section = joint_settings()
    assert CODECS["joint-sketch"].Settings.model_validate(section.model_dump(mode="json")) == section
    assert section.sample_rank == 6
    assert section.view_rank == 4
    assert section.kept(40) == TOP_K
    assert [column.shared for column in section.columns] == [True, False]
    assert all(column.coded for column in section.columns)
