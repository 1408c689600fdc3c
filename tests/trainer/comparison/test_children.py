"""Child processes: what they are told, what they leave, and that they never outlive their parent."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.trainer.runs import write_digits_cache
from trainer.comparison.children import Child, Children

ROOT = Path(__file__).parents[3]
PARENT = """
import sys, time
from pathlib import Path
from trainer.comparison.children import Child
Child(sys.argv[2:], Path(sys.argv[1]), threads=1)
time.sleep(600)
"""


def ended(child):
    while child.poll() is None:
        time.sleep(0.02)
    return child


def gone(process, within_s=60):
    try:
        process.wait(within_s)
    except psutil.TimeoutExpired:
        return False
    return True


def test_a_refusal_is_told_in_one_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("an older one\n")
    with Children() as children:
        child = ended(children.add(Child(["--data", "digits"], log, threads=1)))
        assert child.poll() == 2
        assert child.failure() == "--out is missing; --help shows examples"
        children.remove(child)
        assert len(children) == 0
    assert log.read_text().startswith("an older one\n$ kdtrain --data digits\n")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("epoch 1\nerror: the first line\nits second\n", "the first line"),
        ("Traceback:\n  File x\nRuntimeError: CUDA out of memory\n\n", "RuntimeError: CUDA out of memory"),
    ],
)
def test_a_failure_is_its_error_or_the_end_of_its_traceback(tmp_path, said, expected):
    log = tmp_path / "log"
    log.write_text("error: an older one\n")
    with Children() as children:
        child = ended(children.add(Child(["--help"], log, threads=1)))
    with log.open("a") as file:
        file.write(said)
    assert child.failure() == expected


def test_a_child_that_was_killed_says_so(tmp_path):
    child = Child(["--help"], tmp_path / "log", threads=1)
    child.kill()
    assert child.failure() == "ended by SIGKILL (out of memory?)"


def test_leaving_the_block_ends_what_runs(tmp_path):
    with Children() as children:
        child = children.add(Child(["--help"], tmp_path / "log", threads=1))
    assert child.poll() in (0, -signal.SIGTERM)
    if child.poll():
        assert child.failure() == "ended by SIGTERM"


def test_a_child_stops_with_a_checkpoint_when_its_parent_is_killed(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    words = [
        *("--data", "digits:train", "--limit", "160", "--cache", str(cache), "--student", "cnn3(width=2)"),
        *("--epochs", "100000", "--device", "cpu", "--no-tensorboard", "--out", str(tmp_path / "run")),
    ]
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log"), *words]
    parent = subprocess.Popen(command, cwd=ROOT)
    try:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert parent.poll() is None
            time.sleep(0.05)
        (child,) = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.wait()
    try:
        assert gone(child)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    assert "error: stopped after step" in (tmp_path / "log").read_text()
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
