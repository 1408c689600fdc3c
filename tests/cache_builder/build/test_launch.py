"""Processes that one launcher starts build one cache together."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cache_builder.build.launch import ALONE, Launch
from cache_builder.build.pipeline import build
from cache_builder.console.progress import BuildProgress
from cache_builder.format import ConfigError, KDCacheError
from cache_builder.format.layout import tiles
from cache_builder.format.locks import lock
from cache_builder.format.locks.lock import JoinedHold, claimed
from tests.cache_builder.command import ROOT
from tests.cache_builder.conftest import settings_for
from tests.cache_builder.trees import objects
from tests.caches import synthetic_manifest
from tests.format.locks.test_lock import held_elsewhere

HOLD = """
import sys, time
from cache_builder.format.locks.lock import claimed
with claimed(sys.argv[1], "one") as hold:
    hold.ready()
    print("held", flush=True)
    time.sleep(60)
"""
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", __name__])
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "3",
    "LOCAL_RANK": "1",
    "TORCHELASTIC_RUN_ID": "x",
    "MASTER_PORT": "29500",
}


class TestEnvironment:
    def test_what_torchrun_says(self) -> None:
        one = Launch.from_environment(TORCHRUN)
        assert (one.rank, one.world, one.local_rank) == (1, 3, 1)
        assert one.name == Launch.from_environment(TORCHRUN | {"RANK": "2", "LOCAL_RANK": "0"}).name
        assert one.name != Launch.from_environment(TORCHRUN | {"MASTER_PORT": "29501"}).name

    @pytest.mark.parametrize(
        "given", [{}, {"RANK": "1"}, {"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "1"}]
    )
    def test_alone(self, given: dict[str, str]) -> None:
        assert Launch.from_environment(given) == ALONE

    @pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("0", "0"), ("a", "2"), ("0", "b")])
    def test_what_cannot_be(self, rank: str, world: str) -> None:
        with pytest.raises(ConfigError, match=r"RANK|WORLD_SIZE"):
            Launch.from_environment({"RANK": rank, "WORLD_SIZE": world})

    @pytest.mark.parametrize(
        ("wanted", "gpus", "expected"),
        [
            ("auto", 8, "cuda:1"),
            ("cuda", 1, "cuda:0"),
            ("auto", 0, "auto"),
            ("cpu", 8, "cpu"),
            ("cuda:3", 8, "cuda:3"),
        ],
    )
    def test_a_gpu_each(self, wanted: str, gpus: int, expected: str) -> None:
        assert Launch.from_environment(TORCHRUN).device(wanted, gpus) == expected
        assert ALONE.device(wanted, gpus) == wanted


def test_every_tile_has_one_owner_and_the_first_views_of_a_row_come_first() -> None:
    everything = list(tiles(synthetic_manifest(views=5, rows=100, tile_rows=16)))
    shares = [Launch(rank, 3).share(everything) for rank in range(3)]
    assert sorted(map(str, itertools.chain(*shares))) == sorted(map(str, everything))
    for share in shares:
        assert [tile.group for tile in share] == sorted(tile.group for tile in share)
        blocks = [{tile.block for tile in share if tile.group == group} for group in range(3)]
        assert blocks[0] == blocks[1] == blocks[2]


def build_share(out: str, photos: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)
    settings = settings_for(out, photos, name="same", views=9, tile_rows=8, limit=40)
    with BuildProgress(Console(file=io.StringIO())) as progress:
        build(settings, progress, Launch(rank, world, name="one" if world > 1 else None))


def ended(out: Path, photos: Path, world: int) -> list[int | None]:
    """Exit codes of all processes of a launch; the others are there before rank 0."""
    ranks = [
        PROCESSES.Process(target=build_share, args=(str(out), photos, rank, world)) for rank in range(world)
    ]
    for process in reversed(ranks):
        process.start()
    for process in ranks:
        process.join()
    return [process.exitcode for process in ranks]


def test_two_processes_build_what_one_does(tmp_path: Path, photos: Path) -> None:
    assert ended(tmp_path / "one.zarr", photos, 1) == [0]
    assert ended(tmp_path / "two.zarr", photos, 2) == [0, 0]
    assert objects(tmp_path / "two.zarr") == objects(tmp_path / "one.zarr")
    assert ended(tmp_path / "two.zarr", photos, 2) == [0, 0]  # there is nothing to do
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.zarr", "two.zarr"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("again", [1, 3])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_is_killed_and_another_number_of_ranks_goes_on(
    tmp_path: Path, photos: Path, victim: int, again: int
) -> None:
    """As torchrun does, the others are stopped when one dies, or end by themselves."""
    assert ended(tmp_path / "one.zarr", photos, 1) == [0]
    out = tmp_path / "two.zarr"
    ranks = [PROCESSES.Process(target=build_share, args=(str(out), photos, rank, 2)) for rank in range(2)]
    for process in ranks:
        process.start()
    while len(list(out.glob("commits/g*.json"))) < 3 and ranks[victim].is_alive():
        time.sleep(0.001)
    ranks[victim].kill()
    ranks[victim].join()
    assert ranks[victim].exitcode == -signal.SIGKILL
    for process in ranks:
        process.kill()
        process.join()
    assert ended(out, photos, again) == [0] * again
    assert objects(out) == objects(tmp_path / "one.zarr")


class TestJoining:
    """Rank 0 is in another process: here it is played by one that holds the lock."""

    def test_another_builders_lock_is_not_joined(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock, "_PATIENCE_S", 0.0)
        with (
            held_elsewhere(tmp_path / "a.zarr"),
            pytest.raises(KDCacheError, match=r"rank 0 .* did not come"),
        ):
            JoinedHold(str(tmp_path / "a.zarr"), "one").wait(lambda: False)

    def test_nobody_waits_for_what_is_finished(self, tmp_path: Path) -> None:
        JoinedHold(str(tmp_path / "a.zarr"), "one").wait(lambda: True)
        assert list(tmp_path.iterdir()) == []

    def test_rank_0_says_when_and_its_end_is_seen(self, tmp_path: Path) -> None:
        out = str(tmp_path / "a.zarr")
        with subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, cwd=ROOT) as rank_0:
            assert rank_0.stdout is not None
            rank_0.stdout.readline()
            JoinedHold(out, "one").wait(lambda: False)
            JoinedHold(out, "one").check()
            with pytest.raises(KDCacheError, match="has ended"):
                JoinedHold(out, "another").check()
            rank_0.kill()
        with pytest.raises(KDCacheError, match="has ended"):
            JoinedHold(out, "one").check()

    def test_also_on_an_object_store(self) -> None:
        out = "memory://launch/a.zarr"
        with claimed(out, "one") as hold:
            with pytest.raises(KDCacheError, match="has ended"):
                JoinedHold(out, "one").check()
            hold.ready()
            JoinedHold(out, "one").wait(lambda: False)
            JoinedHold(out, "one").check()
        with pytest.raises(KDCacheError, match="has ended"):
            JoinedHold(out, "one").check()
