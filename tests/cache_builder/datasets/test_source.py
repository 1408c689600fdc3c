"""Laws over every data set, and the specs that open none."""

from __future__ import annotations

import multiprocessing
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.main

from cache_builder.build.rendering import RenderTask, ViewRenderer, chunks, render_batches
from cache_builder.cli.app import app as builder
from cache_builder.datasets import DATASETS, ArraySource, ImageSource, LimitedSource, open_source
from cache_builder.format.errors import ConfigError
from cache_builder.views.recipes import RrcFlip
from cache_builder.views.replay import Replay
from tests.cache_builder.datasets.made import CLASSES, COUNT, MAKERS
from tests.cache_builder.photographs import cut
from trainer.cli.app import app as trainer


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every kind that has files, made on first use."""
    root = tmp_path_factory.mktemp("data sets")
    return {kind: make(root / kind) for kind, make in MAKERS.items()} | {"digits": "digits"}


@pytest.fixture(params=[*MAKERS, "digits", "array"])
def source(request: pytest.FixtureRequest, specs: dict[str, str]) -> ImageSource:
    if request.param == "array":
        images = np.stack([cut(index, 32, 32) for index in range(5)])
        return ArraySource("array", images, np.arange(5, dtype=np.int32), tuple("abcde"), first_id=100)
    return open_source(specs[request.param])


def test_reading_is_repeatable_and_typed(source: ImageSource) -> None:
    for row in (0, len(source) - 1):
        first, again = source.read(row), source.read(row)
        assert first.value.dtype == torch.uint8
        assert first.value.shape[0] == 3
        assert torch.equal(first.value, again.value)
        assert first.digest == again.digest
        assert 0 <= first.digest < 2**64


def test_lengths_agree(source: ImageSource) -> None:
    assert len(source.ids) == len(set(source.ids)) == len(source)
    assert source.labels is not None
    assert source.labels.dtype == np.int32
    assert source.labels.shape == (len(source),)
    assert source.class_names is not None
    assert source.labels.max() < len(source.class_names)


def test_loader_workers_can_have_it(source: ImageSource) -> None:
    copy = pickle.loads(pickle.dumps(source))
    assert list(copy.ids) == list(source.ids)
    assert copy.spec == source.spec
    assert torch.equal(copy.read(2).value, source.read(2).value)


def test_a_limited_one_pickles_only_its_own_ids(source: ImageSource) -> None:
    limited = pickle.loads(pickle.dumps(LimitedSource(source, 3)))
    assert list(limited.ids) == list(source.ids)[:3]
    assert len(pickle.dumps(limited.ids)) < len(pickle.dumps(list(source.ids))) + 400
    assert torch.equal(limited.read(2).value, source.read(2).value)


def test_opening_again_gives_the_same_rows(source: ImageSource) -> None:
    if source.spec == "array":
        pytest.skip("made by hand")
    again = open_source(source.spec)
    assert again.ids == source.ids
    np.testing.assert_array_equal(again.labels, source.labels)
    assert again.class_names == source.class_names


def test_forked_workers_render_the_same(source: ImageSource) -> None:
    renderer = ViewRenderer(source, Replay(RrcFlip(), 7, 4, len(source), 16, "bilinear"))
    tasks = [RenderTask(row, 0, 2) for row in range(5)]
    here, there = (list(render_batches(renderer, chunks(tasks, 2), workers, False)) for workers in (0, 2))
    for ours, theirs in zip(here, there, strict=True):
        assert (ours.rows, ours.digests, ours.errors) == (theirs.rows, theirs.digests, theirs.errors)
        assert torch.equal(ours.images, theirs.images)


def look(source: ImageSource) -> tuple[list[str], int, bytes]:
    """In a process of its own: the ids, and one sample."""
    sample = source.read(3)
    return list(source.ids), sample.digest, sample.value.numpy().tobytes()


def test_spawned_workers_read_the_same(specs: dict[str, str]) -> None:
    sources = [open_source(spec) for spec in specs.values()]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for source, found in zip(sources, pool.map(look, sources), strict=True):
            assert found == look(source), source.spec


@pytest.mark.parametrize("kind", ["webdataset", "hf", "csv", "parquet"])
def test_kinds_of_the_same_images_agree(kind: str, specs: dict[str, str]) -> None:
    folder, other = open_source(specs["imagefolder"]), open_source(specs[kind])
    assert len(other) == len(folder) == COUNT
    np.testing.assert_array_equal(other.labels, folder.labels)
    expected = tuple("012") if kind == "webdataset" else CLASSES
    assert other.class_names == expected
    for row in range(COUNT):
        assert other.read(row).digest == folder.read(row).digest
        assert torch.equal(other.read(row).value, folder.read(row).value)


def test_ids_are_made_once(source: ImageSource) -> None:
    assert source.ids is source.ids


@pytest.mark.parametrize(
    ("spec", "offered"), [("imagefoldr:/data", "imagefolder"), ("digit", "digits"), ("", "cifar10")]
)
def test_unknown_kinds_are_told_the_nearest(spec: str, offered: str) -> None:
    with pytest.raises(ConfigError, match="unknown data set kind") as caught:
        open_source(spec)
    assert offered in str(caught.value)


def test_a_bare_folder_is_told_how_to_write_it(photos: Path) -> None:
    with pytest.raises(ConfigError, match=f"write imagefolder:{photos}"):
        open_source(str(photos))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.tar", "webdataset"), ("a.tsv", "csv"), ("a.parquet", "parquet"), ("state.json", "hf")],
)
def test_other_bare_paths_are_told_likewise(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).touch()
    path = tmp_path if kind == "hf" else tmp_path / name
    with pytest.raises(ConfigError, match=f"write {kind}:{path}"):
        open_source(str(path))


def test_every_kind_is_listed() -> None:
    assert set(DATASETS) == {*MAKERS, "digits", "cifar10", "cifar100"}


@pytest.mark.parametrize("program", [builder, trainer], ids=["kdcache build", "kdtrain"])
def test_the_help_names_every_kind_and_no_other(program: typer.Typer) -> None:
    command = typer.main.get_command(program)
    if program is builder:
        command = command.get_command(typer.Context(command), "build")
    (data,) = (parameter for parameter in command.params if "--data" in parameter.opts)
    named = re.findall(r"\b(\w+)(?:\[?:(?=[A-Z[]|\w+\|))", getattr(data, "help", ""))
    assert set(DATASETS) <= set(named), named
    kinds = {name for name in named if name.islower()} - {"module"}  # of package.module:Name
    assert kinds == set(DATASETS)
