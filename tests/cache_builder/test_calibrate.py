from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cache_builder import calibrate
from cache_builder.format import codec

RANK, CLASSES = 6, 40


def logits_of(pairs: int, classes: int = CLASSES, scale: float = 1.0, seed: int = 0) -> NDArray[np.float32]:
    """Six strong directions and a little of every other."""
    rng = np.random.default_rng(seed)
    strong = rng.normal(size=(pairs, RANK)) * [9, 7, 5, 4, 3, 2] @ rng.normal(size=(RANK, classes))
    return (scale * (strong + 0.1 * rng.normal(size=(pairs, classes)) + rng.normal(size=classes))).astype(
        np.float32
    )


def decoded(logits: NDArray[np.float32], fitted: calibrate.Calibration) -> NDArray[np.float32]:
    section, basis = fitted.codec, fitted.basis
    return codec.decode(codec.pack(codec.encode(logits, section, basis), section), section, basis)


class TestPairs:
    @given(samples=st.integers(1, 5000), views=st.integers(1, 12), seed=st.integers(0, 2**64 - 1))
    def test_distinct_in_range_and_as_many_as_asked(self, samples: int, views: int, seed: int) -> None:
        pairs = calibrate.calibration_pairs(samples, views, seed)
        assert len(pairs) == len(set(pairs)) == min(samples * views, 4096)
        assert all(0 <= view < views and 0 <= row < samples for view, row in pairs)

    def test_all_of_a_small_data_set(self) -> None:
        assert sorted(calibrate.calibration_pairs(3, 2, 9)) == [
            (view, row) for view in (0, 1) for row in range(3)
        ]

    def test_spread_evenly_over_a_large_one(self) -> None:
        pairs = np.array(calibrate.calibration_pairs(1_000_000, 8, 1))
        assert np.histogram(pairs[:, 1], bins=16, range=(0, 1_000_000))[0].tolist() == [256] * 16
        assert (np.bincount(pairs[:, 0]) > 400).all()

    def test_a_function_of_the_seed(self) -> None:
        first = calibrate.calibration_pairs(10_000, 8, 1)
        assert first == calibrate.calibration_pairs(10_000, 8, 1)
        assert first != calibrate.calibration_pairs(10_000, 8, 2)


class TestDefaults:
    @pytest.mark.parametrize(("classes", "top_k"), [(2, 2), (10, 10), (32, 32), (33, 5), (1000, 5)])
    def test_top_k(self, classes: int, top_k: int) -> None:
        assert calibrate.default_top_k(classes) == top_k

    @pytest.mark.parametrize(("classes", "rank"), [(33, 32), (64, 63), (65, 64), (1000, 64)])
    def test_tail_rank(self, classes: int, rank: int) -> None:
        assert calibrate.default_tail_rank(classes) == rank

    def test_exact_has_no_tail(self) -> None:
        fitted = calibrate.exact(10)
        assert (fitted.codec.top_k, fitted.codec.tail_rank, fitted.codec.tail_step) == (10, 0, 0)
        assert fitted.basis.basis.shape == (0, 10)
        logits = logits_of(50, 10)
        spans = logits.max(axis=1) - logits.min(axis=1)
        # Half of one of 255 steps of the span, which float16 may have rounded up by 2^-11.
        assert (
            np.abs(decoded(logits, fitted) - logits).max(axis=1) <= spans * (1 + 2**-10) / 510 + 1e-5
        ).all()


class TestFit:
    def test_deterministic(self) -> None:
        first, again = (calibrate.fit(logits_of(300), 5, RANK) for _ in range(2))
        assert first.codec == again.codec
        assert first.section == again.section
        np.testing.assert_array_equal(first.basis.basis, again.basis.basis)

    @pytest.mark.parametrize(("pairs", "classes"), [(300, 40), (60, 200)], ids=["C < pairs", "C > pairs"])
    def test_the_basis_is_a_pca(self, pairs: int, classes: int) -> None:
        logits = logits_of(pairs, classes)
        basis = calibrate.fit(logits, 5, RANK).basis
        np.testing.assert_allclose(basis.basis @ basis.basis.T, np.eye(RANK), atol=1e-5)
        np.testing.assert_allclose(basis.mean, logits.mean(axis=0), atol=1e-4)
        _, _, wanted = np.linalg.svd(logits - logits.mean(axis=0), full_matrices=False)
        np.testing.assert_allclose(np.abs(np.sum(basis.basis * wanted[:RANK], axis=1)), 1, atol=1e-4)

    def test_signs_are_settled(self) -> None:
        basis = calibrate.fit(logits_of(300), 5, RANK).basis.basis
        assert (np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1) > 0).all()

    def test_decodes_other_logits_of_the_same_teacher(self) -> None:
        fitted = calibrate.fit(logits_of(300), 5, RANK)
        error = np.sqrt(np.square(decoded(logits_of(300), fitted) - logits_of(300)).mean())
        assert error == pytest.approx(fitted.section.tail_error, rel=1e-3)
        assert error < 0.05 * fitted.section.logit_std

    def test_fewer_pairs_than_rank(self) -> None:
        logits = logits_of(4)
        fitted = calibrate.fit(logits, 5, RANK)
        assert fitted.codec.tail_rank == RANK
        norms = np.linalg.norm(fitted.basis.basis, axis=1)
        np.testing.assert_allclose(norms, [1, 1, 1, 0, 0, 0], atol=1e-5)
        np.testing.assert_allclose(decoded(logits, fitted), logits, atol=6 * fitted.codec.tail_step)

    def test_a_teacher_that_always_says_the_same(self) -> None:
        logits = np.tile(logits_of(1), (50, 1))
        fitted = calibrate.fit(logits, 5, RANK)
        assert fitted.section.logit_std == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(decoded(logits, fitted), logits, atol=0.1)


class TestStep:
    def test_bounded_by_one_logit(self) -> None:
        assert calibrate.tail_step(50.0, 1000, 64) == calibrate.MAX_TAIL_STEP == 1.0

    def test_follows_a_quiet_teacher(self) -> None:
        noise = calibrate.tail_step(0.2, 1000, 64) * np.sqrt(64 / 1000 / 12)
        assert noise == pytest.approx(calibrate.MAX_NOISE * 0.2, rel=0.01)

    def test_positive_for_constant_logits(self) -> None:
        assert calibrate.tail_step(0.0, 1000, 64) > 0

    @given(std=st.floats(1e-3, 100))
    def test_a_last_bit_does_not_change_it(self, std: float) -> None:
        step = calibrate.tail_step(std, 1000, 64)
        assert step == float(f"{step:.3g}")


class TestWide:
    def test_only_leading_columns_that_need_it(self) -> None:
        fitted = calibrate.fit(logits_of(300), 5, RANK)
        coef = np.abs((logits_of(300) - fitted.basis.mean) @ fitted.basis.basis.T / fitted.codec.tail_step)
        needs = coef.max(axis=0) * 1.5 > 127
        assert fitted.codec.tail_wide == int(np.flatnonzero(needs).max(initial=-1)) + 1
        assert 0 < fitted.codec.tail_wide < RANK, "this teacher should have some of each"

    def test_no_calibration_logit_is_clipped(self) -> None:
        fitted = calibrate.fit(logits_of(300, scale=20), 5, RANK)
        fields = codec.encode(logits_of(300, scale=20), fitted.codec, fitted.basis)
        assert np.abs(fields["tail_coef_wide"].astype(int)).max() < 32767
        assert all(np.abs(fields[name].astype(int)).max() < 127 for name in fields if name == "tail_coef")
