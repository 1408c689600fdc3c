"""The real ``kdcache`` command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
KDCACHE = str(Path(sys.executable).with_name("kdcache"))
_LIMIT_S = 120.0


def arguments(out: Path, photos: Path, *more: str, teacher: str = "slow", workers: int = 2) -> list[str]:
    """``kdcache build`` of ten tiles that take a while."""
    return [
        *("build", "--teacher", f"tests.cache_builder.models:{teacher}", "--data", f"imagefolder:{photos}"),
        *("--out", str(out), "--views", "3", "--input-size", "16", "--batch-size", "24", "--seed", "5"),
        *("--tile-rows", "8", "--tail-rank", "12", "--workers", str(workers), "--device", "cpu", *more),
    ]


def environment() -> dict[str, str]:
    """One thread: what a model computes may depend on their number in the last bit."""
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "TERM": "dumb"}


def run(*command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        [KDCACHE, *command], capture_output=True, text=True, cwd=ROOT, env=environment() | changes,
        check=False, timeout=_LIMIT_S,
    )  # fmt: skip


@contextmanager
def start(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run in a process group of its own; nothing of it is left afterwards."""
    with subprocess.Popen(
        [KDCACHE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=environment(), start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen[str], reached: Callable[[list[str]], bool]) -> list[str]:
    """Wait until ``reached(lines of stdout so far)``; the process must still be running then."""
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)  # type: ignore[union-attr]
    reader.start()
    until = time.monotonic() + _LIMIT_S
    while not reached(lines):
        assert process.poll() is None, f"it ended early: {lines} {process.stderr and process.stderr.read()}"
        assert time.monotonic() < until, f"nothing happened: {lines}"
        time.sleep(0.005)
    return lines
