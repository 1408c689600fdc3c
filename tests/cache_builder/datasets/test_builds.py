"""From the command line: a cache of every kind of data set, and a student that learns from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache_builder.cli.app import app as builder
from cache_builder.datasets import open_source
from cache_builder.format import open_cache
from tests.cache_builder.datasets.made import LABELS, MAKERS, write_tar
from trainer.cli.app import app as trainer

BUILD = ["build", "--teacher", "tests.cache_builder.models:small", "--views", "2", "--input-size", "16",
         "--batch-size", "8", "--tile-rows", "5", "--device", "cpu"]  # fmt: skip
TRAIN = ["--student", "tests.trainer.runs:with_dropout", "--loss", "kd", "--epochs", "1", "--batch-size", "4",
         "--device", "cpu", "--no-tensorboard"]  # fmt: skip


def build(spec: str, out: Path, *more: str) -> str:
    """What the command prints."""
    done = CliRunner().invoke(builder, [*BUILD, "--data", spec, "--out", str(out), *more])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("kind", MAKERS)
def test_a_cache_is_built_and_learnt_from(kind: str, tmp_path: Path) -> None:
    spec = MAKERS[kind](tmp_path / "data")
    build(spec, tmp_path / "a.zarr", "--workers", "0")
    cache, source = open_cache(tmp_path / "a.zarr"), open_source(spec)
    assert cache.ids == source.ids
    assert cache.labels.tolist() == LABELS
    assert cache.class_names == source.class_names
    assert cache.digests.tolist() == [source.read(row).digest for row in range(len(source))]
    words = ["--cache", str(tmp_path / "a.zarr"), "--data", spec, "--val-data", spec, "--workers", "0"]
    done = CliRunner().invoke(trainer, [*TRAIN, *words, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "last.safetensors").exists()


@pytest.mark.parametrize("kind", ["webdataset", "hf", "csv"])
def test_the_number_of_workers_changes_nothing(kind: str, tmp_path: Path) -> None:
    spec = MAKERS[kind](tmp_path / "data")
    for workers in ("0", "2"):
        build(spec, tmp_path / f"{workers}.zarr", "--workers", workers)
    alone, together = (open_cache(tmp_path / f"{workers}.zarr") for workers in ("0", "2"))
    assert alone.digests.tolist() == together.digests.tolist()
    for view in range(2):
        assert alone.read_page(view).tobytes() == together.read_page(view).tobytes()


def test_an_image_that_is_no_image_stops_the_build_or_is_left_out(tmp_path: Path) -> None:
    spec = MAKERS["webdataset"](tmp_path)
    write_tar(tmp_path / "train-002.tar", [("9999.jpg", b"damaged"), ("9999.cls", b"0")])
    spec = spec.replace("001}", "002}")
    done = CliRunner().invoke(
        builder, [*BUILD, "--data", spec, "--out", str(tmp_path / "a.zarr"), "--workers", "0"]
    )
    assert done.exit_code == 1
    assert "'train-002/9999' of shard" in " ".join(done.output.split())
    build(spec, tmp_path / "b.zarr", "--on-error", "skip", "--workers", "0")
    assert open_cache(tmp_path / "b.zarr").manifest.invalid_rows == (12,)
