"""An actor that Ray started anew does whatever it is called for first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from zarr.abc.store import Store

from cache_builder.build import work as work_module
from cache_builder.build.cluster import actors as module
from cache_builder.build.cluster.actors import Assignment, Decoder, Teacher
from cache_builder.build.cluster.seen import Witness
from cache_builder.build.pipeline import build
from cache_builder.build.plan import make_plan
from cache_builder.build.rendering import RenderTask
from cache_builder.format import writer as writer_module
from cache_builder.format.root import read_manifest
from cache_builder.format.store import delete_object
from tests.cache_builder.build.cluster.test_seen import HOLD
from tests.cache_builder.command import ROOT
from tests.cache_builder.conftest import settings_for
from tests.cache_builder.trees import objects

LAUNCH = "ray one"


@pytest.fixture(autouse=True)
def references_are_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray does for an actor here: it fetches."""
    monkeypatch.setattr(module, "find_ray", lambda: SimpleNamespace(get=lambda reference: reference))


@contextmanager
def driver(out: str) -> Iterator[None]:
    """Another process, which holds the output."""
    with subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def references(settings: Any, source: Any) -> list[Any]:
    assignment = Assignment(settings, LAUNCH, version("kdcache"), os.getcwd(), Witness.of(source))  # noqa: PTH109
    return [assignment, source]


def test_a_teacher_started_anew_is_opened_by_whichever_call_comes_first(tmp_path: Path, photos: Path) -> None:
    settings = settings_for(tmp_path / "cache.zarr", photos)
    source = make_plan(settings).source
    given = references(settings, source)
    assert Teacher().finished(given) is None
    whole = build(settings)
    there = Teacher().finished(given)
    assert there is not None
    assert there.was_finished
    assert there.manifest == whole.manifest


def test_a_decoder_started_anew_renders(tmp_path: Path, photos: Path) -> None:
    settings = settings_for(tmp_path / "cache.zarr", photos)
    plan = make_plan(settings)
    tasks = [RenderTask(3, 0, 2), RenderTask(4, 0, 2)]
    batch, pictures = Decoder().render(tasks, [*references(settings, plan.source), plan.replay])
    assert batch.rows == [3, 4]
    assert pictures.shape == (2, 2, 3, 16, 16)


def test_any_teacher_goes_on_where_another_was(tmp_path: Path, photos: Path) -> None:
    """The begin and every block by an actor of its own, as if each died before the next call."""
    settings = settings_for(tmp_path / "cache.zarr", photos, name="same")
    plan = make_plan(settings)
    given = references(settings, plan.source)
    with driver(settings.out):
        assert Teacher().begin(given) is None
        done = [Teacher().run(block, None, given) for block in (0, 2, 1)]
    assert sum(one.stats.done for one in done) == 80 * 3
    build(settings)
    build(settings_for(tmp_path / "other.zarr", photos, name="same"))
    assert objects(Path(settings.out)) == objects(tmp_path / "other.zarr")


def test_a_teacher_that_was_taken_for_dead_takes_no_commit_away(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path / "cache.zarr", photos)
    given = references(settings, make_plan(settings).source)
    taken_away: list[str] = []

    def noted(store: Store, key: str) -> None:
        taken_away.append(key)
        delete_object(store, key)

    monkeypatch.setattr(writer_module, "delete_object", noted)
    with driver(settings.out):
        Teacher().begin(given)
        Teacher().run(1, None, given)
        commit = next((tmp_path / "cache.zarr" / "commits").glob("g*.json"))
        before = commit.stat()
        # It looked for commits before the other one wrote any.
        monkeypatch.setattr(module, "read_commit_bytes", lambda *_: {})
        again = Teacher().run(1, None, given)
    assert (again.stats.done, again.stats.records_committed) == (96, 0)
    assert commit.stat() == before
    assert not [key for key in taken_away if key.startswith("commits/")]


def test_a_row_block_lists_no_commits_but_its_own(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path / "cache.zarr", photos)
    given = references(settings, make_plan(settings).source)
    listed: list[str] = []
    monkeypatch.setattr(work_module, "list_keys", lambda _, prefix: listed.append(prefix) or [])
    with driver(settings.out):
        teacher = Teacher()
        teacher.begin(given)
        assert [teacher.run(1, None, given).stats.done for _ in range(2)] == [96, 0]
    assert not listed


def test_a_sealed_cache_that_lacks_a_tile_is_open_before_teachers_write(tmp_path: Path, photos: Path) -> None:
    settings = settings_for(tmp_path / "cache.zarr", photos)
    whole = build(settings).manifest
    next((tmp_path / "cache.zarr" / "commits").glob("*-b0000001.json")).unlink()
    given = references(settings, make_plan(settings).source)
    with driver(settings.out):
        assert Teacher().begin(given) is None
        manifest = read_manifest(settings.out)
        assert manifest is not None
        assert manifest.cache_id is None
    assert build(settings).manifest == whole
