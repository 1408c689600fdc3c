"""What a build finds its records to keep: against an independent computation, and over interruptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cache_builder.build.kept import KeptMeter
from cache_builder.build.rendering import RenderedBatch
from cache_builder.calibration.calibrate import fit
from cache_builder.datasets import DATASETS
from cache_builder.format.kept import RecordKept, kept_figures
from cache_builder.format.manifest import CodecRequest
from cache_builder.format.reader import Cache, open_cache
from tests.cache_builder.build.test_pipeline import Interrupting
from tests.cache_builder.build.test_statistics import live
from tests.cache_builder.conftest import Build
from tests.caches import synthetic_logits


def kept_of(path: Path) -> RecordKept:
    statistics = open_cache(path).statistics()
    assert statistics is not None
    assert statistics.kept is not None
    return statistics.kept


def expected(logits: NDArray[np.float32], cache: Cache) -> tuple[float, list[float]]:
    """Share lost and cosines, in float64, written without looking at the meter."""
    views, rows = range(cache.manifest.views.count), range(cache.manifest.data.samples)
    stored = np.concatenate([cache.decode(cache.read_rows(view, rows)) for view in views])
    wide, decoded = logits.reshape(stored.shape).astype(np.float64), stored.astype(np.float64)
    mean = cache.codec.arrays["mean"].astype(np.float64)
    student = mean + (wide - mean) / 2

    def gradient(teacher: NDArray[np.float64], t: float) -> NDArray[np.float64]:
        q, p = (torch.from_numpy(x / t).softmax(dim=1).numpy() for x in (student, teacher))
        return (q - p).ravel()

    cosines = []
    for t in (1.0, 4.0):
        a, b = gradient(decoded, t), gradient(wide, t)
        cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return float(((decoded - wide) ** 2).sum() / ((wide - mean) ** 2).sum()), cosines


@pytest.mark.parametrize("codec", ["joint-sketch", "class-sketch"])
def test_is_what_dense_logits_give(run_build: Build, photos: Path, tmp_path: Path, codec: str) -> None:
    run_build(codec=codec, top_k=3, tail_rank=12)
    cache = open_cache(tmp_path / "cache.zarr")
    found, (lost, cosines) = kept_of(tmp_path / "cache.zarr"), expected(live(cache, photos), cache)
    assert found.records == 80 * 3
    assert found.lost == pytest.approx(lost, rel=1e-3)
    assert found.kd_cosines == pytest.approx(cosines, abs=1e-4)
    assert 0 < found.lost < 0.9


def test_where_every_logit_is_stored_there_is_nothing_to_measure(run_build: Build) -> None:
    statistics = run_build(codec="all-logits", tail_rank=None).statistics
    assert statistics is not None
    assert statistics.kept is None


def test_unreadable_rows_are_left_out(run_build: Build, own_photos: Path, tmp_path: Path) -> None:
    (own_photos / "class_03" / "img_0.jpg").write_bytes(b"no image")
    run_build(folder=own_photos, on_error="skip")
    assert kept_of(tmp_path / "cache.zarr").records == 79 * 3


def test_interrupted_and_continued_is_as_uninterrupted(
    run_build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_build(out=tmp_path / "whole.zarr", name="same")
    with monkeypatch.context() as patch:
        patch.setitem(DATASETS, "imagefolder", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            run_build(name="same")
    run_build(name="same")
    assert kept_of(tmp_path / "cache.zarr") == kept_of(tmp_path / "whole.zarr")


def test_of_many_samples_some_are_looked_at_whatever_the_batches() -> None:
    dense = synthetic_logits(1, 6000, 40)[0]
    codec = fit(dense[:1000], CodecRequest(bytes_per_view=20), "class-sketch").codec
    logits, records = torch.from_numpy(dense), codec.pack(codec.encode(dense))

    def measured(batch_size: int) -> RecordKept:
        meter, tiles = KeptMeter(codec, 6000), []
        for start in range(0, 6000, batch_size):
            rows = range(start, min(6000, start + batch_size))
            batch = RenderedBatch(list(rows), [0] * len(rows), torch.empty(0), [None] * len(rows), {})
            meter.add(batch, records[rows.start : rows.stop], logits[rows.start : rows.stop])
            tiles.append(meter.take())
        found = kept_figures(tiles)
        assert found is not None
        return found

    few, many = measured(7), measured(1000)
    assert few.records == many.records == 546  # every 11th of 6,000
    assert few.lost == pytest.approx(many.lost, rel=1e-6)
