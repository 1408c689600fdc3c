"""The benchmark of real teachers, on Gaussian logits."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.encodings import Encoded, Floats, calibrated, even_tail, top_log_probs
from benchmarks.even_tail import top_k_even_tail
from benchmarks.gradients import Batches
from benchmarks.real_teachers import Ground, Measured, bound_rows, columns, size_at
from benchmarks.teacher_views import half_of_origins, halves
from benchmarks.view_encodings import Encoding, each_view
from cache_builder.format.manifest import CodecRequest

SAMPLES, VIEWS, CLASSES, SHOWN = 512, 4, 40, 128


@pytest.fixture(scope="module")
def ground() -> Ground:
    rng = np.random.default_rng(0)
    scale = np.geomspace(4, 0.2, CLASSES)
    logits = rng.normal(size=(SAMPLES, 1, CLASSES)) + 0.5 * rng.normal(size=(SAMPLES, VIEWS, CLASSES))
    live = (logits * scale).astype(np.float32)
    student = live[:SHOWN, :2].swapaxes(0, 1) * np.float32(0.5)
    fitted = np.arange(SAMPLES) % 2 == 0
    return Ground(halves("toy", live, fitted, np.flatnonzero(~fitted)[:SHOWN], student, None))


def encoding(change: float) -> Encoding:
    """What keeps logits and lets their distance from the usual shrink by a part."""

    def encode(fit: Floats, held: Floats) -> Encoded:
        mean = fit.mean(axis=0)
        return Encoded("", 10.0, mean + np.float32(1 - change) * (held - mean))

    return each_view("toy", encode)


def test_what_is_kept_whole_loses_nothing(ground: Ground) -> None:
    found = ground.measured(encoding(0.0))
    assert found.lost < 1e-12
    assert max(found.tv) < 1e-6
    assert min(found.cosines.values()) > 1 - 1e-6


@pytest.mark.parametrize("part", [0.1, 0.5])
def test_the_variance_lost_is_the_square_of_what_was_shrunk(ground: Ground, part: float) -> None:
    assert ground.measured(encoding(part)).lost == pytest.approx(part**2, rel=1e-4)


def test_a_shift_of_a_whole_row_loses_no_variance(ground: Ground) -> None:
    shifted = ground.views.held + np.random.default_rng(1).normal(size=(SAMPLES // 2, VIEWS, 1))
    assert ground.lost(shifted.astype(np.float32)) < 1e-6


def test_ours_stays_above_the_bound(ground: Ground) -> None:
    request = CodecRequest(top_k=3, tail_rank=32, tail_step=1.0)
    ours = each_view("kdcache, toy", lambda fit, held: calibrated("kdcache, toy", fit, held, request))
    found = ground.measured(ours)
    assert 0 < found.bounds[1] < found.bounds[0] < found.size
    assert len(found.cells()) == len(columns())
    assert bound_rows(ground, [found])[0][:2] == ["toy", 0.2]


def test_the_even_tail_in_columns_is_the_even_tail() -> None:
    logits = np.random.default_rng(0).normal(size=(64, 50)).astype(np.float32) * 3
    found = top_k_even_tail(logits, 5)
    np.testing.assert_allclose(found.decoded, even_tail(*top_log_probs(logits, 5), 50), rtol=2e-3)
    assert 5 < found.bytes_per_view < 40


def measured(size: float, lost: float) -> Measured:
    return Measured("toy", "kdcache", "kdcache", "", size, 0, lost, (1.0, 1.0), (), {})


def test_sizes_between_two_rows_are_read_on_logarithms() -> None:
    rows = [measured(100.0, 0.01), measured(10.0, 1.0), measured(50.0, 2.0)]
    assert size_at(0.1, rows) == pytest.approx(np.sqrt(1000))
    assert size_at(0.001, rows) is None


def test_halves_keep_what_was_made_of_one_picture_together() -> None:
    ids = ["photographs/a-01.jpg", "photographs/a-02.jpg", "photographs/b-01.jpg", "stamps/a-b-01.jpg"]
    assert half_of_origins(ids).tolist() == [True, True, False, True]


def test_unknown_labels_are_what_the_teacher_thinks_of_all_views() -> None:
    logits = np.zeros((2, 2, 3), np.float32)
    logits[0, :, 2], logits[1, :, 1] = 5, 5
    found = halves("toy", logits, np.array([True, False]), np.array([1]), logits[1:].swapaxes(0, 1), None)
    assert isinstance(found.batches, Batches)
    assert found.batches.labels.tolist() == [1]
