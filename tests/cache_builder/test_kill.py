"""A build that is killed anywhere and run again ends as one that nobody touched.

The builds run in processes forked from one that has torch imported: a real ``kdcache build`` spends most of
its life importing, which is no place to be killed at. Kills of the real command are at the end.
"""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import torch
from rich.console import Console

from cache_builder.build.forward import TeacherForward
from cache_builder.build.pipeline import build
from cache_builder.console.progress import BuildProgress
from cache_builder.format.errors import KDCacheError
from cache_builder.format.root import read_manifest
from tests.cache_builder.command import arguments, run, start, wait_for
from tests.cache_builder.conftest import settings_for
from tests.cache_builder.trees import contents

SEED = 20251122
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", __name__])


def build_once(out: Path, photos: Path, workers: int) -> None:
    """What a child process does: six tiles in two view groups."""
    torch.set_num_threads(1)
    # As in the command: loader workers are forked, and locks have no names that a killed process leaves.
    multiprocessing.set_start_method("fork", force=True)
    settings = settings_for(
        out, photos, name="same", views=9, tile_rows=8, limit=24, batch_size=24, workers=workers
    )
    with BuildProgress(Console(file=io.StringIO())) as progress:
        build(settings, progress)


class Rerun(NamedTuple):
    """What a build gave that was run again after it had been killed."""

    is_equal: bool
    """A reader sees what the uninterrupted build gave."""
    left_over: list[Path]
    """Unfinished files that nothing will ever finish."""


WHOLE = Rerun(is_equal=True, left_over=[])


class Campaign:
    """Kills builds of one cache and compares what reruns give with the uninterrupted one."""

    def __init__(self, folder: Path, photos: Path) -> None:
        self.photos = photos
        self._start(folder / "warm.zarr").join()
        began = time.monotonic()
        self.finish(folder / "whole.zarr")
        self.duration_s = time.monotonic() - began
        self.expected = contents(folder / "whole.zarr")

    def _start(self, out: Path, workers: int = 0) -> Any:
        process = PROCESSES.Process(target=build_once, args=(out, self.photos, workers))
        process.start()
        return process

    def finish(self, out: Path, workers: int = 0) -> None:
        """Build to the end."""
        process = self._start(out, workers)
        process.join()
        assert process.exitcode == 0

    def kill(self, out: Path, when: Callable[[], bool], workers: int = 0) -> str:
        """SIGKILL a build as soon as ``when`` says so; returns what it had got to."""
        process = self._start(out, workers)
        while process.is_alive() and not when():
            time.sleep(0.0005)
        process.kill()
        process.join()
        return progress_of(out, process.exitcode)

    def kill_worker(self, out: Path, when: Callable[[], bool]) -> str:
        """SIGKILL one of the two loader processes of a build; returns what it had got to."""
        process = self._start(out, workers=2)
        loaders: list[psutil.Process] = []
        while process.is_alive() and not (when() and loaders):
            with contextlib.suppress(psutil.Error):
                loaders = psutil.Process(process.pid).children()
            time.sleep(0.0005)
        for loader in loaders[:1]:
            with contextlib.suppress(psutil.Error):
                loader.kill()
        process.join(60)
        assert not process.is_alive(), "the build waits for a dead loader"
        return progress_of(out, process.exitcode)

    def rerun(self, out: Path, workers: int = 0) -> Rerun:
        """Run the same build again and compare everything a reader sees."""
        self.finish(out, workers)
        return Rerun(
            contents(out) == self.expected, [*out.parent.glob("*.creating"), *out.rglob("*.partial")]
        )


def progress_of(out: Path, exitcode: int) -> str:
    if exitcode == 0:
        return "finished before"
    manifest = read_manifest(out)
    if manifest is None:
        return "calibrating" if not list(out.parent.glob(f".{out.name}.*")) else "creating"
    return f"{committed(out)} tiles" if manifest.cache_id is None else "sealed"


def committed(out: Path) -> int:
    """Commit objects that exist."""
    return len(list(out.glob("commits/g*.json")))


@pytest.fixture(scope="module")
def campaign(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(tmp_path_factory.mktemp("killed"), photos)


def random_instants(campaign: Campaign, folder: Path, count: int, seed: int, workers: int) -> list[Rerun]:
    """``count`` kills, one at a random instant of each ``count``-th of the build's duration."""
    rng = np.random.default_rng(seed)
    reruns = []
    for trial in range(count):
        reached = "finished before"
        while reached == "finished before":  # this run was quicker than the one that was timed
            instant_s = float(rng.uniform(trial, trial + 1)) / count * campaign.duration_s
            out = folder / f"{trial}-{instant_s:.6f}.zarr"
            until = time.monotonic() + instant_s
            reached = campaign.kill(out, functools.partial(is_past, until), workers)
            print(f"seed {seed}, trial {trial}: killed after {instant_s:.3f} s: {reached}")  # noqa: T201
        reruns.append(campaign.rerun(out, workers))
    return reruns


def is_past(until: float) -> bool:
    return time.monotonic() >= until


def test_uninterrupted_builds_are_equal(campaign: Campaign, tmp_path: Path) -> None:
    assert campaign.rerun(tmp_path / "again.zarr") == WHOLE


@pytest.mark.slow
def test_killed_at_20_random_instants(campaign: Campaign, tmp_path: Path) -> None:
    assert random_instants(campaign, tmp_path, 20, SEED, workers=0) == [WHOLE] * 20


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_100_random_instants(campaign: Campaign, tmp_path: Path, workers: int) -> None:
    assert random_instants(campaign, tmp_path, 100, SEED + 1 + workers, workers) == [WHOLE] * 100


def worker_kills(campaign: Campaign, folder: Path, count: int, seed: int) -> list[Rerun]:
    """Loader processes killed at random instants: the build says so or ends well; nothing is lost."""
    rng = np.random.default_rng(seed)
    died, reruns = 0, []
    for trial in range(count):
        instant_s = float(rng.uniform(0, 1)) * campaign.duration_s
        out = folder / f"loader-{trial}.zarr"
        until = time.monotonic() + instant_s
        reached = campaign.kill_worker(out, functools.partial(is_past, until))
        died += reached != "finished before"
        print(f"seed {seed}, trial {trial}: loader killed after {instant_s:.3f} s: {reached}")  # noqa: T201
        reruns.append(campaign.rerun(out, workers=2))
    assert died, "no loader died while it was needed"
    return reruns


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_loader_killed_at_random_instants(campaign: Campaign, tmp_path: Path) -> None:
    assert worker_kills(campaign, tmp_path, 4, SEED) == [WHOLE] * 4


@pytest.mark.slow
def test_a_loader_killed_at_40_random_instants(campaign: Campaign, tmp_path: Path) -> None:
    assert worker_kills(campaign, tmp_path, 40, SEED + 7) == [WHOLE] * 40


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_a_teacher_that_raises_at_some_batch(
    campaign: Campaign, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was committed stays, and the same command goes on."""
    out = tmp_path / "raised.zarr"
    calls = 0
    forward = TeacherForward.__call__

    def raising(teacher: TeacherForward, images: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == batch + 2:  # the number of classes and a first picture go before
            raise RuntimeError("out of luck")
        return forward(teacher, images)

    monkeypatch.setattr(TeacherForward, "__call__", raising)
    with pytest.raises(KDCacheError, match="out of luck"):
        build_once(out, campaign.photos, 0)
    monkeypatch.setattr(TeacherForward, "__call__", forward)
    assert campaign.rerun(out) == WHOLE


def test_killed_again_and_again(campaign: Campaign, tmp_path: Path) -> None:
    """One cache, killed whenever it has got one tile further."""
    out = tmp_path / "one.zarr"
    for tiles in range(1, 6):
        campaign.kill(out, functools.partial(has_tiles, out, tiles))
    assert campaign.rerun(out) == WHOLE


def has_tiles(out: Path, tiles: int) -> bool:
    return committed(out) >= tiles


@pytest.mark.parametrize(
    ("glob", "count"),
    [
        (".*.creating", 1),
        (".*.creating/codec", 1),
        ("*.zarr/commits", 1),
        ("*.zarr/records/logits/lse_above/c/0/*", 1),
        ("*.zarr/records/logits/*/c/0/1/*", 3),
        ("*.zarr/commits/*.partial", 1),
        ("*.zarr/commits/g*.json", 6),
        ("*.zarr/zarr.json.*.partial", 1),
    ],
)
def test_killed_at_chosen_points(campaign: Campaign, tmp_path: Path, glob: str, count: int) -> None:
    """While the store is made, between shards, between commits, while it is sealed."""
    out = tmp_path / "point.zarr"
    campaign.kill(out, lambda: len(list(tmp_path.glob(glob))) >= count)
    assert campaign.rerun(out) == WHOLE


@pytest.mark.parametrize("tiles", [None, 3], ids=["calibrating", "three tiles"])
def test_the_command_itself(by_command: Path, photos: Path, tmp_path: Path, tiles: int | None) -> None:
    """With loader processes, which must not outlive it for long or disturb the next build."""
    out = tmp_path / "cache.zarr"
    with start(*arguments(out, photos)) as process:
        if tiles is None:
            wait_for(process, lambda lines: any("calibrating" in line for line in lines))
        else:
            wait_for(process, lambda _: has_tiles(out, tiles))
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    again = run(*arguments(out, photos))
    assert again.returncode == 0, again.stderr
    assert contents(out) == contents(by_command)
