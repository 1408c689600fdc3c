"""The teacher's figures against independent computations, and over builds that were interrupted."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error
from typer.testing import CliRunner

from cache_builder.build.forward import TeacherForward
from cache_builder.build.statistics import INVALID, NO_LABEL, StatisticsMeter
from cache_builder.cli import build as cli_build
from cache_builder.cli import inspect as cli_inspect
from cache_builder.cli.app import app
from cache_builder.datasets import DATASETS, open_source
from cache_builder.format.reader import Cache, open_cache
from cache_builder.format.statistics import TeacherStatistics, figures
from cache_builder.look.inspect import histogram, statistics_lines
from cache_builder.views import recipe_from
from cache_builder.views.apply import render
from tests.cache_builder.build.test_pipeline import Interrupting
from tests.cache_builder.conftest import Build, settings_for
from tests.cache_builder.models import small

CPU = torch.device("cpu")


def drawn(rows: int = 700, classes: int = 40, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of a teacher that is right now and then, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, generator=generator)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    logits[torch.arange(0, rows, 2), labels[::2]] += 2 * scale
    return logits, labels


def measured(logits: Tensor, labels: Tensor, batch: int = 64) -> TeacherStatistics:
    meter = StatisticsMeter(logits.shape[1], CPU)
    for start in range(0, len(logits), batch):
        meter.add(logits[start : start + batch], labels[start : start + batch])
    found = figures([meter.take()], logits.shape[1])
    assert found is not None
    return found


def expected(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, object]:
    """The same figures by NumPy, in float64, written without looking at the meter."""
    wide = logits.astype(np.float64)
    probabilities = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    entropy = -np.where(probabilities > 0, probabilities * np.log(probabilities + 1e-300), 0).sum(axis=1)
    classes = logits.shape[1]
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    best = np.argsort(-wide, axis=1, kind="stable")[:, :5]
    return {
        "top1": right.mean(),
        "top5": (best == labels[:, None]).any(axis=1).mean(),
        "nll": -np.log(probabilities[np.arange(len(labels)), labels]).mean(),
        "ece": error,
        "entropy": entropy.mean(),
        "entropy_histogram": tuple(np.histogram(entropy, bins=20, range=(0, math.log(classes)))[0].tolist()),
    }


def check(found: TeacherStatistics, wanted: dict[str, object]) -> None:
    assert found.entropy_histogram == wanted["entropy_histogram"]
    assert (found.top1, found.top5) == (wanted["top1"], wanted["top5"])
    for name in ("nll", "ece", "entropy"):
        assert getattr(found, name) == pytest.approx(wanted[name], rel=2e-5, abs=1e-7), name


class TestMeter:
    @pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 12.0])
    def test_against_numpy(self, scale: float) -> None:
        logits, labels = drawn(scale=scale)
        found = measured(logits, labels)
        assert (found.records, found.labelled) == (700, 700)
        check(found, expected(logits.numpy(), labels.numpy()))

    @pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
    def test_calibration_error_against_torchmetrics(self, scale: float) -> None:
        logits, labels = drawn(scale=scale)
        wanted = multiclass_calibration_error(logits.softmax(1), labels, num_classes=40, n_bins=15, norm="l1")
        assert measured(logits, labels).ece == pytest.approx(float(wanted), abs=1e-6)

    @pytest.mark.parametrize("batch", [1, 7, 700])
    def test_batches_of_any_size_count_the_same(self, batch: int) -> None:
        logits, labels = drawn()
        found, wanted = measured(logits, labels, batch), measured(logits, labels)
        assert found.entropy_histogram == wanted.entropy_histogram
        assert (found.top1, found.top5) == (wanted.top1, wanted.top5)
        assert found.nll == pytest.approx(wanted.nll, rel=1e-6)

    def test_rows_without_label_count_for_the_entropy_alone(self) -> None:
        logits, labels = drawn()
        some = torch.where(torch.arange(700) % 3 == 0, NO_LABEL, labels)
        found, kept = measured(logits, some), (some != NO_LABEL).numpy()
        everything = expected(logits.numpy(), labels.numpy())
        labelled = expected(logits.numpy()[kept], labels.numpy()[kept])
        check(found, labelled | {name: everything[name] for name in ("entropy", "entropy_histogram")})
        assert (found.records, found.labelled) == (700, kept.sum())

    def test_without_labels(self) -> None:
        logits, labels = drawn()
        found = measured(logits, torch.full_like(labels, NO_LABEL))
        assert (found.labelled, found.top1, found.ece) == (0, None, None)
        assert found.entropy == measured(logits, labels).entropy

    def test_unreadable_rows_are_left_out_whatever_their_logits_are(self) -> None:
        logits, labels = drawn()
        wanted = measured(logits[5:], labels[5:], batch=695)
        logits[:5], labels[:5] = torch.nan, INVALID
        assert measured(logits, labels, batch=700) == wanted
        meter = StatisticsMeter(40, CPU)
        meter.add(logits[:5], labels[:5])
        assert meter.take().records == 0

    def test_of_equal_logits_the_lower_class_comes_first(self) -> None:
        """As in the record, so that both tell one accuracy."""
        logits = torch.zeros(8, 8)
        found = measured(logits, torch.arange(8))
        assert (found.top1, found.top5) == (1 / 8, 5 / 8)
        assert found.entropy_histogram == (0,) * 19 + (8,)

    def test_a_teacher_that_is_certain(self) -> None:
        logits = torch.full((6, 3), -200.0)
        logits[:, 1] = 200
        found = measured(logits, torch.tensor([1, 1, 1, 0, 1, 1]))
        assert found.entropy == 0
        assert found.entropy_histogram == (6,) + (0,) * 19
        assert found.ece == pytest.approx(1 / 6)
        assert found.nll == pytest.approx(400 / 6)

    def test_half_precision_is_counted_in_float32(self) -> None:
        logits, labels = drawn()
        half = logits.bfloat16()
        check(measured(half, labels), expected(half.float().numpy(), labels.numpy()))

    def test_taking_forgets(self) -> None:
        logits, labels = drawn()
        meter = StatisticsMeter(40, CPU)
        meter.add(logits, labels)
        first = meter.take()
        assert meter.take().records == 0
        meter.add(logits, labels)
        assert meter.take() == first


def live(cache: Cache, photos: Path) -> NDArray[np.float32]:
    """Dense logits [V, N, C] of the teacher, without the builder."""
    manifest, source = cache.manifest, open_source(f"imagefolder:{photos}")
    seen = manifest.input
    forward = TeacherForward(small().eval(), seen.mean, seen.std, CPU, "fp32")
    recipe, seed = recipe_from(manifest.views.recipe), manifest.views.seed
    images = [source.read(row).image for row in range(len(source))]
    return np.stack([
        forward(
            torch.stack([
                render(image, recipe, seed, view, row, seen.size, seen.interpolation)
                for row, image in enumerate(images)
            ])
        ).numpy()
        for view in range(manifest.views.count)
    ])  # fmt: skip


def statistics_of(path: Path) -> TeacherStatistics:
    found = open_cache(path).statistics()
    assert found is not None
    return found


class TestBuild:
    def test_is_what_dense_logits_give(self, run_build: Build, photos: Path, tmp_path: Path) -> None:
        result = run_build()
        cache = open_cache(tmp_path / "cache.zarr")
        logits = live(cache, photos)
        check(
            statistics_of(tmp_path / "cache.zarr"),
            expected(logits.reshape(-1, 40), np.tile(cache.labels, len(logits))),
        )
        assert result.statistics == cache.statistics()
        assert result.statistics is not None
        assert result.statistics.top1 == result.stats.top1

    @pytest.mark.parametrize("changes", [{"batch_size": 7}, {"views": 9, "batch_size": 5}], ids=str)
    def test_labels_go_with_their_pictures_in_any_batch(
        self, run_build: Build, tmp_path: Path, changes: dict[str, object]
    ) -> None:
        result = run_build(**changes)
        assert result.statistics is not None
        assert result.statistics.labelled == 80 * result.manifest.views.count
        assert result.statistics.top1 == result.stats.top1

    def test_unreadable_rows_and_missing_labels(self, run_build: Build, own_photos: Path) -> None:
        (own_photos / "class_03" / "img_0.jpg").write_bytes(b"no image")
        found = run_build(folder=own_photos, on_error="skip", ignore_labels=True).statistics
        assert found is not None
        assert (found.records, found.labelled, found.nll) == (79 * 3, 0, None)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_interrupted_and_continued_is_as_uninterrupted(
        self, run_build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
    ) -> None:
        whole = run_build(out=tmp_path / "whole.zarr", top_k=40, name="same").statistics
        with monkeypatch.context() as patch:
            patch.setitem(DATASETS, "imagefolder", Interrupting)
            with pytest.raises(KeyboardInterrupt):
                run_build(top_k=40, name="same")
        partial = open_cache(tmp_path / "cache.zarr", allow_partial=True).statistics()
        assert partial is not None
        assert partial.records == 64 * 3
        assert run_build(top_k=40, name="same", workers=workers).statistics == whole
        assert statistics_of(tmp_path / "cache.zarr") == whole
        assert run_build(top_k=40, name="same").statistics == whole  # finished already


def shown(logits: torch.Tensor, labels: torch.Tensor) -> list[str]:
    return statistics_lines(measured(logits, labels))


class TestShown:
    def test_for_people(self) -> None:
        logits, labels = drawn()
        found = measured(logits, labels)
        first, second = statistics_lines(found)
        assert first == (
            f"teacher top-1 {found.top1:.2%}, top-5 {found.top5:.2%}, NLL {found.nll:.4f}, "
            f"calibration error {found.ece:.2%} over 700 live views"
        )
        assert second.startswith(f"entropy {found.entropy:.3f} nats, 0 │")
        assert second.endswith("│ 3.69 over 700 live views")
        assert statistics_lines(None) == []

    def test_without_labels(self) -> None:
        logits, labels = drawn()
        (line,) = statistics_lines(measured(logits, torch.full_like(labels, NO_LABEL)))
        assert line.startswith("entropy")

    def test_a_teacher_that_guesses_is_told(self) -> None:
        logits = torch.randn(2000, 40, generator=torch.Generator().manual_seed(0))
        guessed = torch.arange(2000) % 40
        assert sum("no more often than by guessing" in line for line in shown(logits, guessed)) == 1
        sometimes_right = torch.where(torch.arange(2000) % 20 == 0, logits.argmax(dim=1), guessed)
        assert len(shown(logits, sometimes_right)) == 2
        assert len(shown(logits[:99], guessed[:99])) == 2  # too few to tell

    def test_histogram(self) -> None:
        assert histogram((0, 1, 50, 100, 101, 800)) == " ▁▁▁▂█"
        assert histogram((0, 3, 3)) == " ██"

    def test_by_the_commands(self, monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path) -> None:
        text = io.StringIO()
        for module in (cli_build, cli_inspect):
            monkeypatch.setattr(module, "Console", lambda: Console(file=text, width=200))
        out = tmp_path / "a.zarr"
        cli_build.run_build(settings_for(out, photos, limit=20))
        lines = statistics_lines(statistics_of(out))
        assert all(line in text.getvalue() for line in lines)
        text.truncate(0)
        assert CliRunner().invoke(app, ["inspect", str(out)]).exit_code == 0
        assert all(line in text.getvalue() for line in lines)
        asked = CliRunner().invoke(app, ["inspect", str(out), "--json"])
        assert json.loads(asked.output)["statistics"] == json.loads(json.dumps(asdict(statistics_of(out))))
