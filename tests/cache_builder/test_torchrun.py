"""``torchrun -m kdcache build``, by the real program: a rank dies, and other ranks go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cache_builder.command import ROOT, arguments, environment
from tests.cache_builder.trees import objects

_LIMIT_S = 240.0


def launched(processes: int, out: Path, photos: Path) -> subprocess.Popen[str]:
    """torchrun ends its ranks itself when it is asked to, so that nothing of it is left."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*launcher, f"--nproc-per-node={processes}", "-m", "kdcache", *arguments(out, photos, workers=0)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment(),
    )  # fmt: skip


def ranks(launcher: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes of a launcher by their rank; those that have only just begun are left out."""
    found = {}
    for child in psutil.Process(launcher.pid).children():
        try:
            found[child.environ().get("RANK", "")] = child
        except psutil.Error:
            continue
    return {rank: child for rank, child in found.items() if rank}


def kill_a_rank_half_way(launcher: subprocess.Popen[str], out: Path, rank: str) -> None:
    until = time.monotonic() + _LIMIT_S
    while len(list(out.glob("commits/g*.json"))) < 3:
        assert launcher.poll() is None, "the build was over before a rank could be killed"
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.01)
    ranks(launcher)[rank].send_signal(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("victim", "again"), [("0", 3), ("1", 1)])
def test_a_rank_of_torchrun_is_killed_and_a_rerun_ends_in_the_bytes_of_one_process(
    tmp_path: Path, photos: Path, by_command: Path, victim: str, again: int
) -> None:
    out = tmp_path / "cache.zarr"
    with launched(2, out, photos) as launcher:
        kill_a_rank_half_way(launcher, out, victim)
        said, _ = launcher.communicate(timeout=_LIMIT_S)
    assert launcher.returncode != 0
    assert "Signal 9 (SIGKILL)" in said
    assert not (out / "commits" / "index.json").exists()
    with launched(again, out, photos) as launcher:
        said, _ = launcher.communicate(timeout=_LIMIT_S)
    assert launcher.returncode == 0, said
    assert objects(out) == objects(by_command)
