from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cache_builder.calibration import calibrate, class_sketch
from cache_builder.calibration.contract import Calibration
from cache_builder.calibration.fidelity import stored_bytes
from cache_builder.calibration.pairs import calibration_pairs, further_groups, pair_count, view_groups
from cache_builder.calibration.topk_tail import is_exact
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CodecRequest, RatePoint

RANK, CLASSES = 6, 40
FREE = CodecRequest()
SKETCHES = ("class-sketch", "joint-sketch")


def logits_of(pairs: int, classes: int = CLASSES, scale: float = 1.0, seed: int = 0) -> NDArray[np.float32]:
    """Six strong directions and a little of every other, the same ones for every seed."""
    fixed = np.random.default_rng(1)
    directions, offset = fixed.normal(size=(RANK, classes)), fixed.normal(size=classes)
    rng = np.random.default_rng(seed)
    strong = rng.normal(size=(pairs, RANK)) * [9, 7, 5, 4, 3, 2] @ directions
    return (scale * (strong + 0.1 * rng.normal(size=(pairs, classes)) + offset)).astype(np.float32)


def decoded(logits: NDArray[np.float32], fitted: Calibration) -> NDArray[np.float32]:
    found: NDArray[np.float32] = fitted.codec.decode(fitted.codec.encode(logits))
    return found


class TestPairs:
    @given(samples=st.integers(1, 5000), views=st.integers(1, 12), seed=st.integers(0, 2**64 - 1))
    def test_distinct_in_range_and_as_many_as_asked(self, samples: int, views: int, seed: int) -> None:
        pairs = calibration_pairs(samples, views, 100, seed)
        assert len(pairs) == len(set(pairs)) == pair_count(samples, views, 100)
        assert all(0 <= view < views and 0 <= row < samples for view, row in pairs)

    @pytest.mark.parametrize(
        ("samples", "views", "classes", "count"),
        [
            (3, 2, 1000, 6),
            (5000, 8, 1000, 800),
            (400, 2, 1000, 512),
            (10**6, 8, 100, 800),
            (10**6, 8, 21_000, 16_384),
        ],
    )
    def test_eight_a_class_but_a_fiftieth_of_the_build(
        self, samples: int, views: int, classes: int, count: int
    ) -> None:
        assert pair_count(samples, views, classes) == count

    def test_all_of_a_small_data_set(self) -> None:
        pairs = calibration_pairs(3, 2, 100, 9)
        assert sorted(pairs) == [(view, row) for view in (0, 1) for row in range(3)]

    def test_of_few_samples_with_many_views_as_many_views_as_are_enough(self) -> None:
        assert view_groups(10, 8, 1000, 40)[:2] == [range(8), range(160, 168)]
        assert len(view_groups(10, 8, 1000, 40)) == 7  # 560 pairs
        assert len(view_groups(10, 8, 20, 40)) == 2
        assert view_groups(100, 8, 1000, 40) == [range(8)]
        assert view_groups(768, 8, 1000, 21_841) == [range(8)]  # memory holds no more

    def test_a_second_look_where_few_rows_could_be_read(self) -> None:
        looked_at = [(row, range(8)) for row in range(0, 10_000, 10)]
        assert further_groups(looked_at, 1000, 10_000, 40) == []
        assert further_groups(looked_at, 64, 10_000, 40) == []  # 512 pairs
        further = further_groups(looked_at, 16, 10_000, 40)
        assert len(further) == 3000
        assert not {row for row, _ in further} & {row for row, _ in looked_at}
        assert len(further_groups(looked_at, 0, 1200, 40)) == 1080  # all that there are

    def test_spread_evenly_over_a_large_one(self) -> None:
        pairs = np.array(calibration_pairs(1_000_000, 8, 512, 1))
        assert np.histogram(pairs[:, 1], bins=16, range=(0, 1_000_000))[0].tolist() == [256] * 16
        assert (np.bincount(pairs[:, 0]) > 400).all()

    def test_a_function_of_the_seed(self) -> None:
        first = calibration_pairs(10_000, 8, 100, 1)
        assert first == calibration_pairs(10_000, 8, 100, 1)
        assert first != calibration_pairs(10_000, 8, 100, 2)


class TestExact:
    @pytest.mark.parametrize(
        ("classes", "top_k", "exact"),
        [
            (2, None, True),
            (32, None, True),
            (33, None, False),
            (33, 33, True),
            (33, 40, True),
            (10, 5, False),
        ],
    )
    def test_few_classes_or_all_asked_for(self, classes: int, top_k: int | None, exact: bool) -> None:
        assert is_exact(classes, CodecRequest(top_k=top_k)) is exact

    def test_has_no_tail(self) -> None:
        fitted = calibrate.unfitted(10, FREE)
        assert fitted is not None
        settings = fitted.codec.settings
        assert (settings.top_k, settings.tail_rank, settings.tail_step) == (10, 0, 0)
        assert fitted.codec.basis.shape == (0, 10)
        assert fitted.section.table == ()
        logits = logits_of(50, 10)
        spans = logits.max(axis=1) - logits.min(axis=1)
        # Half of one of 255 steps of the span, which float16 may have rounded up by 2^-11.
        lost = np.abs(decoded(logits, fitted) - logits).max(axis=1)
        assert (lost <= spans * (1 + 2**-10) / 510 + 1e-5).all()


@pytest.mark.parametrize("codec", SKETCHES)
class TestFit:
    """Laws of every codec that is fitted."""

    def test_deterministic(self, codec: str) -> None:
        first, again = (calibrate.fit(logits_of(300), FREE, codec) for _ in range(2))
        assert (first.codec.settings, first.section) == (again.codec.settings, again.section)
        for name, array in first.codec.arrays.items():
            np.testing.assert_array_equal(array, again.codec.arrays[name])

    def test_the_table_tells_what_other_logits_will_cost(self, codec: str) -> None:
        fitted = calibrate.fit(logits_of(1000), CodecRequest(bytes_per_view=24), codec)
        assert fitted.section.chosen is not None
        point = fitted.section.table[fitted.section.chosen]
        fresh = logits_of(4096, seed=5)
        packed = fitted.codec.pack(fitted.codec.encode(fresh))
        assert stored_bytes(packed, fitted.codec) == pytest.approx(point.bytes_per_view, rel=0.1)
        error = np.sqrt(np.square(decoded(fresh, fitted) - fresh).mean())
        assert error == pytest.approx(point.logit_error, rel=0.2)
        for field in ("top_k", "tail_rank", "tail_step", "value_step"):
            assert getattr(point, field) == chosen(fitted, field)

    @pytest.mark.parametrize("budget", [12.0, 20.0, 64.0])
    def test_stays_within_the_budget(self, budget: float, codec: str) -> None:
        section = calibrate.fit(logits_of(600), CodecRequest(bytes_per_view=budget), codec).section
        assert section.chosen is not None
        assert section.table[section.chosen].bytes_per_view <= budget

    def test_more_bytes_are_not_less_faithful(self, codec: str) -> None:
        cosines = []
        for budget in (12.0, 20.0, 64.0):
            section = calibrate.fit(logits_of(600), CodecRequest(bytes_per_view=budget), codec).section
            assert section.chosen is not None
            cosines.append(section.table[section.chosen].gradient_cosine)
        assert cosines == sorted(cosines)
        assert cosines[-1] > 0.99

    @pytest.mark.parametrize(
        ("field", "value"), [("top_k", 7), ("tail_rank", 5), ("tail_step", 0.3), ("value_step", 0.011)]
    )
    def test_what_was_asked_for_is_taken(self, field: str, value: float, codec: str) -> None:
        if field == "value_step" and codec == "joint-sketch":
            value = 0.3  # a residual has a byte
        fitted = calibrate.fit(logits_of(300), CodecRequest.model_validate({field: value}), codec)
        assert chosen(fitted, field) == value
        if codec == "class-sketch":
            assert {getattr(point, field) for point in fitted.section.table} == {value}

    @pytest.mark.parametrize("pairs", [100, 200])
    def test_residuals_of_other_logits_have_room(self, pairs: int, codec: str) -> None:
        """A basis fits its own outliers: the type of the residuals must not be chosen on them alone."""

        def peaked(rows: int, seed: int) -> NDArray[np.float32]:
            mixed, rng = np.random.default_rng(1).normal(size=(CLASSES, CLASSES)), np.random.default_rng(seed)
            logits = 0.3 * rng.normal(size=(rows, CLASSES)) @ mixed
            logits[np.arange(rows), rng.integers(0, CLASSES, rows)] += rng.gamma(2, 4, rows)
            return logits.astype(np.float32)

        fitted, fresh = calibrate.fit(peaked(pairs, 0), FREE, codec), peaked(3000, 1)
        top = np.argsort(-fresh, axis=1, kind="stable")[:, : fitted.codec.settings.top_k]
        missed = np.abs(np.take_along_axis(decoded(fresh, fitted) - fresh, top, axis=1))
        assert missed.max() < 10 * fitted.codec.settings.value_step

    @pytest.mark.parametrize(
        ("scale", "offset"), [(1e-6, 0), (1e3, 0), (1e4, 0), (1e6, 0), (1, 1e4), (1, -1e5), (1, 1e6)]
    )
    def test_the_order_is_kept_at_every_scale_and_distance_from_zero(
        self, scale: float, offset: float, codec: str
    ) -> None:
        """Not with steps that its integers cannot reach with, or that float32 rounds away."""
        request = CodecRequest(top_k=5, tail_rank=RANK)
        fitted = calibrate.fit(logits_of(300, scale=scale) + np.float32(offset), request, codec)
        fresh = logits_of(500, scale=scale, seed=2) + np.float32(offset)
        order = np.argsort(-fresh, axis=1, kind="stable")
        found = np.take_along_axis(decoded(fresh, fitted), order, axis=1)
        assert (np.diff(found[:, :5], axis=1) < 0).all()
        assert (found[:, 5:] < found[:, 4:5]).all()

    @pytest.mark.parametrize("pairs", [2, 3, 4, 9])
    def test_few_pairs(self, pairs: int, codec: str) -> None:
        fitted = calibrate.fit(logits_of(pairs), FREE, codec)
        assert np.isfinite(decoded(logits_of(pairs), fitted)).all()

    @pytest.mark.parametrize("classes", [33, 200])
    def test_fewer_pairs_than_classes(self, classes: int, codec: str) -> None:
        fitted = calibrate.fit(logits_of(30, classes), FREE, codec)
        assert np.isfinite(decoded(logits_of(50, classes, seed=3), fitted)).all()

    def test_a_teacher_that_always_says_the_same(self, codec: str) -> None:
        logits = np.tile(logits_of(1), (50, 1))
        fitted = calibrate.fit(logits, FREE, codec)
        assert fitted.section.logit_std == pytest.approx(0, abs=1e-6)
        assert fitted.section.is_alike
        np.testing.assert_allclose(decoded(logits, fitted), logits, atol=0.1)

    def test_a_share_of_no_variance_is_not_said_to_be_missed(self, codec: str) -> None:
        rng, one = np.random.default_rng(0), logits_of(1)
        noisy = (one * (1 + 1e-7 * rng.normal(size=(50, CLASSES)))).astype(np.float32)
        request = FREE if codec == "class-sketch" else CodecRequest(lose=0.001)
        fitted = calibrate.fit(noisy, request, codec)
        assert not any("is missed" in line for line in fitted.told)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
    def test_follows_the_scale(self, scale: float, codec: str) -> None:
        fitted = calibrate.fit(logits_of(300, scale=scale), FREE, codec)
        fresh = logits_of(200, scale=scale, seed=2)
        error = np.sqrt(np.square(decoded(fresh, fitted) - fresh).mean())
        # A joint sketch loses a fiftieth of the variance unless it is told otherwise.
        assert error < (0.03 if codec == "class-sketch" else 0.02**0.5) * fitted.section.logit_std

    @pytest.mark.parametrize("field", ["value_step", "tail_step"])
    def test_a_step_that_the_bits_cannot_follow_is_refused(self, field: str, codec: str) -> None:
        request = CodecRequest.model_validate({field: 1e-5})
        flag = "--" + field.replace("_", "-")
        with pytest.raises(ConfigError, match=f"{flag} 1e-05 is too small .* use at least") as refused:
            calibrate.fit(logits_of(200), request, codec)
        said = float(str(refused.value).partition("at least ")[2].partition(",")[0])
        calibrate.fit(logits_of(200), CodecRequest.model_validate({field: said}), codec)


def chosen(fitted: Calibration, field: str) -> float:
    """A setting of a codec, by the name that it has in a request."""
    settings = fitted.codec.settings
    found: float = getattr(settings, field, None) or getattr(settings, field.removeprefix("tail_"))
    return found


def test_a_class_sketch_has_one_row_where_all_is_asked_for() -> None:
    request = CodecRequest(top_k=3, tail_rank=4, tail_step=0.5, value_step=0.1)
    assert len(calibrate.fit(logits_of(300), request, "class-sketch").section.table) == 1


class TestHalves:
    @pytest.mark.parametrize("views", [2, 4, 6, 8])
    def test_weak_and_strong_views_are_in_both(self, views: int) -> None:
        odd = np.array(calibration_pairs(5000, views, 100, 1))[:, 0] % 2
        fitting = class_sketch.first_half(len(odd))
        for half in (fitting, ~fitting):
            assert 0.4 < odd[half].mean() < 0.6

    @pytest.mark.parametrize("pairs", [2, 3, 4, 5, 9])
    def test_neither_is_empty(self, pairs: int) -> None:
        fitting = class_sketch.first_half(pairs)
        assert 0 < fitting.sum() < pairs


class TestBest:
    @staticmethod
    def points(*pairs: tuple[float, float]) -> list[RatePoint]:
        return [
            RatePoint(
                top_k=1, tail_rank=1, tail_step=1.0, value_step=1.0, bytes_per_view=size, tv=(0, 0, 0, 0),
                gradient_cosine=cosine, logit_error=0.0,
            )
            for size, cosine in pairs
        ]  # fmt: skip

    def test_the_most_faithful_within_the_budget(self) -> None:
        assert class_sketch.best(self.points((10, 0.9), (20, 0.99), (30, 0.999)), 25) == 1

    def test_the_smallest_where_none_is_within(self) -> None:
        assert class_sketch.best(self.points((30, 0.9), (20, 0.8), (40, 0.99)), 10) == 1

    def test_the_smaller_of_equal_ones(self) -> None:
        assert class_sketch.best(self.points((30, 0.9), (20, 0.9)), 64) == 1


class TestSteps:
    @given(std=st.floats(1e-3, 100))
    def test_a_last_bit_does_not_change_them(self, std: float) -> None:
        assert all(step == float(f"{step:.3g}") > 0 for step in class_sketch.tail_steps(std, 1000))

    def test_positive_for_constant_logits(self) -> None:
        assert min(class_sketch.tail_steps(0.0, 1000)) > 0


@pytest.mark.parametrize(("lose", "said"), [(None, "the default --lose 0.02"), (0.02, "--lose 0.02")])
def test_a_missed_limit_is_said_by_default_too(lose: float | None, said: str) -> None:
    """A basis of one direction leaves out more than that."""
    fitted = calibrate.fit(logits_of(300), CodecRequest(lose=lose, tail_rank=1), "joint-sketch")
    assert any(line.startswith(f"warning: {said} is missed") for line in fitted.told)
    by_size = calibrate.fit(logits_of(300), CodecRequest(bytes_per_view=20, tail_rank=1), "joint-sketch")
    assert not any("--lose" in line for line in by_size.told)
