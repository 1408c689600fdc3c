"""Builds whose views share a part of their records: what is small, what is interrupted, what is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cache_builder.build import batches
from cache_builder.datasets import DATASETS, ImageFolder, ImageSample
from cache_builder.format import open_cache
from cache_builder.tensors.decode import RecordDecoder
from logit_server.run import serving
from logit_server.settings import Settings
from tests.cache_builder.conftest import Build
from tests.cache_builder.trees import contents, logits, objects
from tests.cache_builder.verify.test_run import checked, failed
from trainer import TeacherCache

NAME = "same"


class StoppedAtSecondLook(ImageFolder):
    """Presses Ctrl-C where row 70 is read once more than calibration reads it."""

    looks = 0

    def read(self, index: int) -> ImageSample:
        if index == 70:
            type(self).looks += 1
            if type(self).looks > 1:
                raise KeyboardInterrupt
        return super().read(index)


@pytest.mark.parametrize("views", [1, 2, 8, 16, 19])
@pytest.mark.parametrize("samples", [2, 3, 10])
def test_few_samples_in_few_or_many_views(run_build: Build, tmp_path: Path, samples: int, views: int) -> None:
    # Named, because of so few records all logits would be smaller.
    small = {"codec": "joint-sketch", "limit": samples, "views": views, "batch_size": 5, "tile_rows": 4}
    manifest = run_build(**small, tail_rank=None).manifest
    assert manifest.codec.name == "joint-sketch"
    cache = open_cache(tmp_path / "cache.zarr")
    assert not list(cache.damaged_shards())
    found = np.stack([logits(cache, view) for view in range(views)])
    assert np.isfinite(found).all()
    spread = float(np.std(found - found.mean(axis=(0, 1))))
    assert manifest.calibration.tail_error < 0.5 * max(spread, manifest.calibration.logit_std)


def test_one_sample_in_several_views(run_build: Build, tmp_path: Path, photos: Path) -> None:
    run_build(limit=1, views=3, tail_rank=None)
    assert failed(checked(tmp_path / "cache.zarr", data=f"imagefolder:{photos}")) == {}


@pytest.mark.parametrize("views", [3, 10])
def test_continued_it_is_what_an_uninterrupted_build_gives(
    run_build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, views: int
) -> None:
    """Though calibration has not computed its logits, which the other build took from there."""
    changes = {"views": views, "batch_size": 7, "tile_rows": 16, "name": NAME, "tail_rank": None}
    run_build(out=tmp_path / "whole.zarr", **changes)
    with monkeypatch.context() as patch:
        patch.setitem(DATASETS, "imagefolder", StoppedAtSecondLook)
        patch.setattr(StoppedAtSecondLook, "looks", 0)
        with pytest.raises(KeyboardInterrupt):
            run_build(**changes)
    commits = len(open_cache(tmp_path / "cache.zarr", allow_partial=True).commits)
    assert 0 < commits < len(open_cache(tmp_path / "whole.zarr").tiles)
    run_build(**changes)
    assert contents(tmp_path / "cache.zarr") == contents(tmp_path / "whole.zarr")
    records = "records/logits/view"
    assert objects(tmp_path / "cache.zarr", records) == objects(tmp_path / "whole.zarr", records)


def test_what_calibration_remembers_changes_no_byte(
    run_build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_build(out=tmp_path / "remembered.zarr", name=NAME)
    monkeypatch.setattr(batches, "live_logits", lambda plan, _, batch: batches._computed(plan, batch))
    monkeypatch.setattr("cache_builder.build.recorder.live_logits", batches.live_logits)
    run_build(out=tmp_path / "computed.zarr", name=NAME)
    assert contents(tmp_path / "remembered.zarr") == contents(tmp_path / "computed.zarr")


def test_views_of_a_tile_share_one_field(run_build: Build, tmp_path: Path) -> None:
    run_build(views=10)
    cache = open_cache(tmp_path / "cache.zarr")
    shared = [cache.codec.unpack(cache.read_page(view))["sample"] for view in range(10)]
    assert all(np.array_equal(shared[0], column) for column in shared[:8])
    assert np.array_equal(shared[8], shared[9])
    assert not np.array_equal(shared[0], shared[8])


def test_served_and_decoded_in_torch_it_is_what_numpy_decodes(run_build: Build, tmp_path: Path) -> None:
    run_build(views=10)
    cache = open_cache(tmp_path / "cache.zarr")
    with (
        serving(Settings(caches=(cache.location,), port=0)) as base,
        TeacherCache.open(f"{base}/v1/caches/cache") as remote,
    ):
        decoder = RecordDecoder(remote.codec)
        for view in (0, 7, 9):
            rows = np.array([79, 3, 3, 40])
            records = remote.fetch(view, rows)
            np.testing.assert_array_equal(records, cache.read_page(view)[rows])
            decoded = decoder(torch.from_numpy(records)).numpy()
            np.testing.assert_array_equal(decoded, cache.decode(records))
