"""Fitting the sketch: the basis, the centres, the types of the columns."""

from __future__ import annotations

import numpy as np
import pytest

from cache_builder.calibration.sketch import Fitted, class_centres, fit_sketch, principal_components
from tests.cache_builder.calibration.test_calibrate import RANK, logits_of


@pytest.mark.parametrize(("pairs", "classes"), [(300, 40), (60, 200)], ids=["C < pairs", "C > pairs"])
def test_the_basis_is_a_pca(pairs: int, classes: int) -> None:
    logits = logits_of(pairs, classes)
    centred = logits - logits.mean(axis=0)
    basis = principal_components(centred, RANK)
    np.testing.assert_allclose(basis @ basis.T, np.eye(RANK), atol=1e-5)
    _, _, wanted = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(basis * wanted[:RANK], axis=1)), 1, atol=1e-4)
    assert (np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1) > 0).all()


def test_rows_that_the_pairs_cannot_span_are_zero() -> None:
    logits = logits_of(4)
    norms = np.linalg.norm(principal_components(logits - logits.mean(axis=0), RANK), axis=1)
    np.testing.assert_allclose(norms, [1, 1, 1, 0, 0, 0], atol=1e-5)


def test_centres_are_means_drawn_to_zero() -> None:
    coef = np.array([[10.0, -4.0], [20.0, -4.0], [6.0, 0.0]])
    centres = class_centres(coef, np.array([2, 2, 0]), 4)
    np.testing.assert_array_equal(centres, [[3, 0], [0, 0], [10, -3], [0, 0]])


def test_centres_stay_within_int16() -> None:
    assert class_centres(np.full((9, 1), 1e9), np.zeros(9, int), 2).max() == 32767


def test_columns_go_from_wide_to_narrow() -> None:
    codec = fit_sketch(Fitted.of(logits_of(400), 20, 5), 5, 20, 0.45, 0.05)
    assert codec.settings.tail_wide > 0
    assert codec.settings.tail_bytes > 0
    assert codec.settings.tail_packed > 0
    fields = codec.encode(logits_of(400))
    assert codec.saturated(fields) <= 0.01 * 400
    assert np.abs(fields["tail_coef_wide"]).max() > 127


def test_a_rank_that_says_little_needs_wide_residuals() -> None:
    fitted = Fitted.of(logits_of(400), 20, 5)
    assert fit_sketch(fitted, 5, 1, 0.2, 0.05).settings.value_bits == 16
    assert fit_sketch(fitted, 5, 20, 0.2, 0.05).settings.value_bits == 8


def test_what_fitted_nothing_decides_the_residuals_too() -> None:
    fitted, unseen = Fitted.of(logits_of(400), 20, 5), logits_of(50, seed=3)
    assert fit_sketch(fitted, 5, 20, 0.2, 0.05, unseen).settings.value_bits == 8
    unseen[7, 3] += 30
    codec = fit_sketch(fitted, 5, 20, 0.2, 0.05, unseen)
    assert codec.settings.value_bits == 16
    decoded = codec.decode(codec.encode(unseen))
    np.testing.assert_allclose(decoded[7, 3], unseen[7, 3], atol=0.05)


def test_lower_ranks_are_the_leading_part() -> None:
    """The table is fitted once, for its largest rank."""
    for rank in (2, 5):
        small = fit_sketch(Fitted.of(logits_of(300), rank, 5), 5, rank, 0.3, 0.05)
        large = fit_sketch(Fitted.of(logits_of(300), 20, 9), 5, rank, 0.3, 0.05)
        assert small.settings == large.settings


@pytest.mark.parametrize(("classes", "coding"), [(200, "rank"), (2049, "class")])
def test_many_classes_are_stored_as_they_are(classes: int, coding: str) -> None:
    codec = fit_sketch(Fitted.of(logits_of(20, classes), 4, 3), 3, 4, 0.3, 0.05)
    assert codec.settings.index_coding == coding
