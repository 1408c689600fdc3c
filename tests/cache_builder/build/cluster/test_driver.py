"""A build on a Ray cluster: the bytes of one process, whatever dies on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.cache_builder.build.cluster.local_cluster import LOOPBACK, LocalCluster, local_cluster
from tests.cache_builder.command import KDCACHE, ROOT, arguments, environment, run
from tests.cache_builder.trees import objects

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'kdcache[ray]'"),
]
LIMIT_S = 900.0
VIEWS = ("--views", "9", "--name", "same")
"""Two view groups, of which the second needs what the first stored for the sample."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two nodes, of two processors and of one."""
    with local_cluster(2, 1) as running:
        yield running


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process builds."""
    out = tmp_path_factory.mktemp("alone") / "cache.zarr"
    assert run(*arguments(out, photos, *VIEWS, workers=0)).returncode == 0
    return objects(out)


def command(out: Path, photos: Path, cluster: LocalCluster, *more: str) -> list[str]:
    on_ray = ("--engine", "ray", "--address", cluster.address)
    return [KDCACHE, *arguments(out, photos, *VIEWS, *on_ray, *more, workers=0)]


def ended(
    given: list[str], cluster: LocalCluster, meanwhile: Callable[[subprocess.Popen[str]], None] | None = None
) -> tuple[int, str]:
    """Exit code and what was said."""
    with subprocess.Popen(
        given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment() | LOOPBACK,
    ) as process:
        try:
            if meanwhile is not None:
                meanwhile(process)
            said, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    return process.returncode, said


def committed(out: Path) -> int:
    return len(list((out / "commits").glob("g*.json")))


def until_committed(out: Path, tiles: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + LIMIT_S
    while committed(out) < tiles:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


def actors(cluster: LocalCluster, kind: str) -> list[psutil.Process]:
    """The processes of this cluster's actors of a kind."""
    return [process for process in processes(cluster) if re.match(rf"ray::{kind}\b", title(process))]


def processes(cluster: LocalCluster) -> list[psutil.Process]:
    """All of them, in the order in which they were started."""
    found = psutil.Process(cluster.process.pid).children(recursive=True)
    return sorted(found, key=psutil.Process.create_time)


def title(process: psutil.Process) -> str:
    """What a process calls itself; nothing where it is gone."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def parent(process: psutil.Process) -> int:
    """Number of the process that started it; 0 where it is gone."""
    with suppress(psutil.NoSuchProcess):
        return process.ppid()
    return 0


def nodes(cluster: LocalCluster) -> list[psutil.Process]:
    """What starts the processes of each node, the oldest node first."""
    return [process for process in processes(cluster) if "/raylet --" in title(process)]


def test_a_killed_teacher_and_a_killed_decoder_change_nothing(
    tmp_path: Path, photos: Path, cluster: LocalCluster, alone: dict[str, bytes]
) -> None:
    out = tmp_path / "cache.zarr"

    def kill(process: subprocess.Popen[str]) -> None:
        until_committed(out, 6, process)
        for kind in ("Decoder", "Teacher"):
            actors(cluster, kind)[0].send_signal(signal.SIGKILL)

    code, said = ended(
        command(out, photos, cluster, "--ray-teachers", "2", "--ray-decoders", "1"), cluster, kill
    )
    assert code == 0, said
    assert "a teacher died" in said
    assert objects(out) == alone
    assert not actors(cluster, "Teacher")


def test_interrupted_continued_by_one_process_and_on_other_nodes(
    tmp_path: Path, photos: Path, cluster: LocalCluster, alone: dict[str, bytes]
) -> None:
    out = tmp_path / "cache.zarr"

    def interrupt(process: subprocess.Popen[str]) -> None:
        until_committed(out, 4, process)
        process.send_signal(signal.SIGINT)

    code, said = ended(command(out, photos, cluster), cluster, interrupt)
    assert code == 128 + signal.SIGINT, said
    assert "what was committed is kept" in said
    assert 4 <= committed(out) < 20
    assert not actors(cluster, "Teacher")
    again = run(*arguments(out, photos, *VIEWS, workers=0))
    assert again.returncode == 0, again.stderr
    assert objects(out) == alone
    code, said = ended(command(out, photos, cluster), cluster)
    assert code == 0, said
    assert "is finished already" in said


def test_a_node_goes_and_another_comes(
    tmp_path: Path, photos: Path, cluster: LocalCluster, alone: dict[str, bytes]
) -> None:
    """The first node's teachers are stopped meanwhile, so that those of the others do the work."""
    out = tmp_path / "cache.zarr"
    first, second = (node.pid for node in nodes(cluster))
    stopped: list[psutil.Process] = []

    def teachers_on(node: int) -> list[psutil.Process]:
        return [teacher for teacher in actors(cluster, "Teacher") if parent(teacher) == node]

    def until_another_commits(process: subprocess.Popen[str], node: int) -> None:
        """Until a teacher of a node, and no other, has a row block and a tile was committed since."""
        until, before = time.monotonic() + LIMIT_S, None
        while before is None or committed(out) <= before:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
            if not committed(out):
                continue
            for teacher in teachers_on(first):
                if teacher not in stopped:
                    teacher.suspend()
                    stopped.append(teacher)
            if before is None and any("Teacher.run" in title(teacher) for teacher in teachers_on(node)):
                before = committed(out)

    def change(process: subprocess.Popen[str]) -> None:
        until_another_commits(process, second)
        cluster.ask("drop")
        cluster.ask("add 1")
        assert second not in (node.pid for node in nodes(cluster))
        until_another_commits(process, nodes(cluster)[-1].pid)
        for teacher in stopped:
            teacher.resume()

    code, said = ended(command(out, photos, cluster), cluster, change)
    assert code == 0, said
    assert "a teacher died, and row block" in said
    assert objects(out) == alone


def test_what_fails_on_a_node_is_told_as_in_one_process(
    tmp_path: Path, own_photos: Path, cluster: LocalCluster
) -> None:
    broken = sorted(own_photos.rglob("*.jpg"))[40]
    broken.write_bytes(b"no picture")
    code, said = ended(command(tmp_path / "cache.zarr", own_photos, cluster), cluster)
    assert code == 1
    assert "error: cannot read image" in said
    assert broken.name in said
    assert "Traceback" not in said


def test_no_cluster(tmp_path: Path, photos: Path) -> None:
    given = arguments(tmp_path / "cache.zarr", photos, "--engine", "ray", "--address", "127.0.0.1:1")
    refused = run(*given, RAY_gcs_rpc_server_connect_timeout_s="2")
    assert refused.returncode == 2
    assert "no cluster at 127.0.0.1:1" in refused.stderr
    assert os.listdir(tmp_path) == []  # noqa: PTH208
