"""``kdcache build --share``: processes that come and go build what one does."""

from __future__ import annotations

import io
import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from cache_builder.build.pipeline import build
from cache_builder.build.recorder import BatchRecorder
from cache_builder.console.progress import BuildProgress
from cache_builder.format import ConfigError
from cache_builder.format.locks import block_leases
from cache_builder.format.locks.block_leases import BlockLeases
from cache_builder.format.locks.lease import LeaseState
from cache_builder.format.owned import BLOCK_LEASES
from tests.cache_builder.conftest import settings_for
from tests.cache_builder.trees import objects

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", __name__])
_LIMIT_S = 240


def build_shared(out: Path, photos: Path, **changes: Any) -> None:
    """Ten row blocks of two view groups."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)
    usual = {"name": "same", "views": 9, "tile_rows": 4, "limit": 40, "codec": "class-sketch", "top_k": 5}
    settings = settings_for(out, photos, **(usual | {"tail_step": 0.5, "share": True} | changes))
    with BuildProgress(Console(file=io.StringIO())) as progress:
        build(settings, progress)


def started(out: Path, photos: Path, **changes: Any) -> Any:
    process = PROCESSES.Process(target=build_shared, args=(out, photos), kwargs=changes)
    process.start()
    return process


def build_and_hang(out: Path, photos: Path) -> None:
    """Its first batch never ends, and its leases are renewed for a moment only."""
    block_leases.BEAT_S, block_leases._HUNG_S = 0.1, 1.0
    BatchRecorder.record = lambda *_: time.sleep(_LIMIT_S * 10)  # type: ignore[method-assign, assignment, return-value]
    build_shared(out, photos)


def build_watching_briefly(out: Path, photos: Path) -> None:
    """Leases that stay as they are for two seconds are those of dead ones to it."""
    block_leases.LEASE_S = block_leases._WATCH_S = 2.0
    build_shared(out, photos)


def ended(*processes: Any) -> list[int | None]:
    for process in processes:
        process.join(_LIMIT_S)
    return [process.exitcode for process in processes]


def wait_until(reached: Callable[[], bool], process: Any) -> None:
    until = time.monotonic() + _LIMIT_S
    while not reached() and process.is_alive():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.001)


def holders(leases: Path) -> set[int]:
    """Numbers of the processes that hold row blocks."""
    found = set()
    for path in leases.glob("*"):
        with suppress(FileNotFoundError):
            state = LeaseState.read(path.read_bytes())
            found |= set() if state is None else {state.holder.pid}
    return found


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process builds that shares with nobody."""
    out = tmp_path_factory.mktemp("alone") / "a.zarr"
    assert ended(started(out, photos, share=False)) == [0]
    return objects(out)


@pytest.mark.timeout(900)
def test_one_of_three_is_killed_and_the_others_finish(
    tmp_path: Path, photos: Path, alone: dict[str, bytes]
) -> None:
    out = tmp_path / "a.zarr"
    three = [started(out, photos) for _ in range(3)]
    leases = out / BLOCK_LEASES
    wait_until(
        lambda: len(list(out.glob("commits/g*.json"))) >= 4 and three[0].pid in holders(leases), three[0]
    )
    three[0].kill()
    assert ended(*three) == [-signal.SIGKILL, 0, 0]
    assert objects(out) == alone
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_who_creates_it_is_killed_and_another_one_does(
    tmp_path: Path, photos: Path, alone: dict[str, bytes]
) -> None:
    out = tmp_path / "a.zarr"
    first = started(out, photos)
    wait_until(lambda: (tmp_path / ".a.zarr-lock").exists(), first)
    second = started(out, photos)
    first.kill()
    assert ended(second) == [0]
    assert objects(out) == alone


@pytest.mark.timeout(900)
def test_one_that_hangs_keeps_nothing_from_the_others(
    tmp_path: Path, photos: Path, alone: dict[str, bytes]
) -> None:
    out = tmp_path / "a.zarr"
    hung = PROCESSES.Process(target=build_and_hang, args=(out, photos))
    hung.start()
    try:
        wait_until(lambda: hung.pid in holders(out / BLOCK_LEASES), hung)
        other = PROCESSES.Process(target=build_watching_briefly, args=(out, photos))
        other.start()
        assert ended(other) == [0]
        assert hung.is_alive()
        assert objects(out) == alone
    finally:
        hung.kill()


def test_every_batch_is_a_sign_of_life(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signs: list[object] = []
    monkeypatch.setattr(BlockLeases, "advanced", lambda leases: signs.append(leases))
    settings = settings_for(tmp_path / "a.zarr", photos, share=True, limit=16, tile_rows=8, batch_size=4)
    build(settings)
    assert len(signs) == 16  # a batch is one row with its views


def test_what_cannot_be_shared(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "a.zarr"
    with pytest.raises(ConfigError, match="--repair is for one process: run it without --share"):
        build(settings_for(out, photos, share=True, repair=True))
    assert ended(started(out, photos, rows="0:4")) == [0]
    with pytest.raises(ConfigError, match=r"--views|views"):
        build(settings_for(out, photos, share=True, name="same", views=3, tile_rows=4, limit=40))
