"""The benchmark of trained students: keys, differences and tables; no student is trained."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import accuracy, accuracy_report
from benchmarks.accuracy_data import held_out_origins
from benchmarks.accuracy_report import ALL_LOSSES, Difference, Line, Row, key_of, lines_of, over_all_losses
from benchmarks.accuracy_teachings import dense_of, losing, top


def row(teaching: str, loss: str, seed: int, top1: float, study: str = "glyphs") -> Row:
    return {"key": key_of(study, teaching, loss, seed), "top1": top1, "bytes": 8.0}


def line(lines: list[Line], teaching: str) -> Line:
    (found,) = [line for line in lines if line.teaching == teaching]
    return found


def test_no_run_is_made_twice() -> None:
    keys = [run.key for run in accuracy.runs()]
    assert len(set(keys)) == len(keys)


def test_the_kept_runs_are_runs_of_this_benchmark() -> None:
    assert accuracy.RUNS.is_file()
    kept = [accuracy_report.Kept.of(row) for row in accuracy.done().values()]
    assert {one.study for one in kept} <= set(accuracy_report.STUDIES)
    assert {row["key"] for row in accuracy.done().values()} <= {run.key for run in accuracy.runs()}


def test_a_difference_is_paired_by_seed() -> None:
    rows = [row("dense logits", "kd T=4", seed, 0.5 + 0.1 * seed) for seed in range(3)]
    rows += [row("ours, .020 lost", "kd T=4", seed, 0.48 + 0.1 * seed) for seed in range(3)]
    found = line(lines_of(rows), "ours, .020 lost").difference
    assert found is not None
    assert found.mean == pytest.approx(-2)
    assert found.half == pytest.approx(0, abs=1e-6)


def test_a_seed_without_its_dense_twin_has_no_difference() -> None:
    rows = [row("dense logits", "kd T=4", 0, 0.5), row("ours, .020 lost", "kd T=4", 1, 0.5)]
    assert line(lines_of(rows), "ours, .020 lost").difference is None


def test_the_interval_is_that_of_the_t_distribution() -> None:
    found = Difference.of([1.0, 2.0, 3.0])
    assert found is not None
    assert found.half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)


def test_labels_alone_are_compared_with_the_first_loss() -> None:
    rows = [row("dense logits", "kd T=4", seed, 0.5) for seed in range(2)]
    rows += [row("hard labels", "", seed, 0.3) for seed in range(2)]
    found = line(lines_of(rows), "hard labels").difference
    assert found is not None
    assert found.mean == pytest.approx(-20)


def test_all_losses_together_pair_the_same_loss_and_seed() -> None:
    rows = [row("dense logits", loss, 0, top1) for loss, top1 in (("kd T=4", 0.6), ("mse", 0.4))]
    rows += [row("ours, .020 lost", loss, 0, top1) for loss, top1 in (("kd T=4", 0.5), ("mse", 0.3))]
    (found,) = over_all_losses(rows)
    assert found.loss == ALL_LOSSES
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(-10)
    assert found.difference.pairs == 2


def test_views_are_compared_with_a_view_for_every_epoch() -> None:
    rows = [row("dense logits, 32 views", "kd T=4", 0, 0.5, "views")]
    rows += [row("dense logits, 1 view", "kd T=4", 0, 0.4, "views")]
    lines = lines_of(rows)
    assert [line.teaching for line in lines] == ["dense logits, 1 view", "dense logits, 32 views"]
    assert lines[0].difference is not None
    assert lines[0].difference.mean == pytest.approx(-10)


def test_some_of_the_views_are_the_first_of_them() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 8, 5)).astype(np.float32)
    given, size = dense_of(2).given(logits)
    assert given is not None
    np.testing.assert_array_equal(given, logits[:2])
    assert size == 10


def test_the_tail_of_the_largest_is_even() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, 9)).astype(np.float32)
    given, size = top(2).given(logits)
    assert given is not None
    assert size == 8
    assert (np.sort(given, axis=2)[..., :7].std(axis=2) < 1e-6).all()


def test_ours_lose_what_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(1, 600, 1)) + rng.normal(size=(1, 600, 40)) * np.geomspace(4, 0.3, 40)
    logits = (shared + 0.5 * rng.normal(size=(4, 600, 40))).astype(np.float32)
    given, size = losing(0.05).given(logits)
    assert given is not None
    centred = [x - x.mean(axis=2, keepdims=True) for x in (given, logits)]
    lost = np.square(centred[0] - centred[1]).sum() / np.square(centred[1] - centred[1].mean((0, 1))).sum()
    assert lost < 0.06
    assert 0 < size < 80


def test_all_of_one_origin_are_held_out_together() -> None:
    ids = [f"stamps/{name}-{index:02d}" for name in "abcdefgh" for index in range(3)]
    held = held_out_origins(ids).reshape(8, 3)
    assert (held == held[:, :1]).all()
    assert held[:, 0].sum() == 2
