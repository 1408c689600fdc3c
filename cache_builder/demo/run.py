"""``kdcache demo``: the whole job on real handwritten digits, with the very commands a user types.

A teacher learns from all 1,197 training digits. Students get only the first 300 of them, the regime in
which a teacher's soft targets have something to give. Two students start from the same weights and see the
same pixels in the same order; one learns from hard labels, the other from the teacher's served logits.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from cache_builder.demo.report import Outcome, StudentRun, print_outcome, read_run, write_report
from cache_builder.format.errors import ConfigError, KDCacheError, ServerError
from cache_builder.format.locations import followed, local_output
from cache_builder.format.wire import cache_path

_MARK = ".kdcache-demo"
_MADE = r"\.kdcache-demo|logs|teacher|runs|digits\.zarr|report\.md|curves\.png|\.(digits\.zarr|teacher)[-.].*"
"""The names of what a demo makes, also of what a killed one leaves."""
_SAMPLES = 300
_VIEWS = 8
_RECIPE = "rrc-flip:min_area=0.5,flip=0"
_TEACHER = "cnn3(width=32)"
_STUDENT = "cnn3(width=8)"
_IMAGE_SIZE = 16
_METHODS = {"hard labels": "ce", "distilled": "ce*0.1 + kd(temperature=4)*0.9"}
_SERVER_START_S = 60.0


class StepError(KDCacheError):
    """A command of the demo failed."""


@dataclass
class Demo:
    """Runs the steps, times them, and keeps the commands for the report."""

    folder: Path
    console: Console
    seconds: dict[str, float] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Time one step and say so."""
        started = time.monotonic()
        self.console.print(f"[bold]{len(self.seconds) + 1}. {title}[/]", highlight=False)
        yield
        self.seconds[title] = time.monotonic() - started
        self.console.print(f"   {self.seconds[title]:.1f} s", highlight=False)

    def run(self, log: str, *words: str, threads: int | None = None) -> None:
        """Run one command, its output in ``logs/``; a failure raises :class:`StepError` with its end."""
        path = self.folder / "logs" / f"{log}.log"
        self.tell(words)
        with path.open("w") as file:
            done = subprocess.run(
                _program(words), stdout=file, stderr=subprocess.STDOUT, env=_environment(threads), check=False
            )
        if done.returncode:
            tail = "".join(path.read_text().splitlines(keepends=True)[-15:])
            raise StepError(
                f"`{shlex.join(words)}` failed with exit code {done.returncode} ({path}):\n{tail}"
            )

    def tell(self, words: tuple[str, ...]) -> None:
        """Show a command the way a person would type it."""
        self.commands.append(shlex.join(words))
        self.console.print(
            f"   $ {self.commands[-1]}", style="dim", markup=False, highlight=False, soft_wrap=True
        )

    @contextmanager
    def server(self, cache: Path, port: int) -> Iterator[str]:
        """A logit server for the time of the block; yields the cache's URL."""
        words = ("kdcache", "serve", str(cache), "--port", str(port))
        self.tell(words)
        with (self.folder / "logs" / "server.log").open("w") as file:
            process = subprocess.Popen(
                _program(words), stdout=file, stderr=subprocess.STDOUT, env=_environment(None)
            )
            try:
                _wait_until_ready(process, port, self.folder / "logs" / "server.log")
                yield f"http://127.0.0.1:{port}{cache_path(cache.stem)}"
            finally:
                process.terminate()
                process.wait()


def run_demo(out: str, seeds: int) -> None:
    """Run everything into ``out``. Raises :class:`ConfigError` when that holds something else."""
    folder = _fresh_folder(followed(local_output(out)))
    demo = Demo(folder, Console())
    cache = folder / "digits.zarr"
    with demo.step("Train the teacher on 1,197 digits"):
        # One thread each: for models this small a second one costs more than it brings.
        demo.run("teacher", *teacher_command(folder), threads=1)
    with demo.step(f"Run it once over {_SAMPLES} digits x {_VIEWS} views: the cache"):
        demo.run("build", *build_command(folder, cache), threads=1)
    port = _free_port()
    with ExitStack() as stack:
        with demo.step("Serve the cache; from here on the teacher is switched off"):
            url = stack.enter_context(demo.server(cache, port))
        with demo.step(f"Train {seeds} students per method, all from {url}"):
            _train_students(demo, url, seeds)
    outcome = _outcome(demo, seeds)
    write_report(outcome)
    print_outcome(outcome, demo.console)


def teacher_command(folder: Path) -> tuple[str, ...]:
    """What trains the demo's teacher into ``folder/teacher``."""
    return (
        *("kdtrain", "--data", "digits:train", "--val-data", "digits:test"),
        *("--recipe", _RECIPE, "--views", str(_VIEWS), "--image-size", str(_IMAGE_SIZE)),
        *("--student", _TEACHER, "--loss", "ce", "--epochs", "16", "--batch-size", "64"),
        *("--optimizer", "adamw", "--lr", "3e-3", "--out", str(folder / "teacher")),
    )


def build_command(folder: Path, cache: Path) -> tuple[str, ...]:
    """What runs that teacher over the students' digits."""
    return (
        *("kdcache", "build", "--teacher", "trainer.students:cnn3"),
        *("--weights", str(folder / "teacher" / "last.safetensors")),
        *("--data", "digits:train", "--limit", str(_SAMPLES), "--views", str(_VIEWS)),
        *("--recipe", _RECIPE, "--out", str(cache)),
    )


def _train_students(demo: Demo, url: str, seeds: int) -> None:
    """Both methods of every seed, as many at a time as there are cores."""
    jobs = [(method, seed) for seed in range(seeds) for method in _METHODS]
    cores = len(os.sched_getaffinity(0))

    def train(job: tuple[str, int]) -> None:
        method, seed = job
        name = _run_name(method, seed)
        words = (
            *("kdtrain", "--cache", url, "--data", "digits:train", "--val-data", "digits:test"),
            *("--student", _STUDENT, "--loss", _METHODS[method], "--epochs", "40", "--batch-size", "64"),
            *("--limit", str(_SAMPLES), "--optimizer", "adamw", "--lr", "5e-3", "--seed", str(seed)),
            *("--out", str(demo.folder / "runs" / name)),
        )
        demo.run(name, *words, threads=1)

    with ThreadPoolExecutor(max_workers=min(cores, len(jobs))) as pool:
        list(pool.map(train, jobs))


def _outcome(demo: Demo, seeds: int) -> Outcome:
    runs = {
        method: [read_run(demo.folder / "runs" / _run_name(method, seed)) for seed in range(seeds)]
        for method in _METHODS
    }
    teacher: StudentRun = read_run(demo.folder / "teacher")
    return Outcome(demo.folder, teacher, runs, demo.seconds, demo.commands, _SAMPLES, _VIEWS)


def _run_name(method: str, seed: int) -> str:
    return f"{method.replace(' ', '-')}-seed{seed}"


def _fresh_folder(folder: Path) -> Path:
    """An empty folder with our mark; what an earlier demo made is replaced, anything else is left alone."""
    if folder.exists():
        if not (folder / _MARK).exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} exists and is no earlier demo; choose another --out")
        _remove_demo(folder)
    (folder / "logs").mkdir(parents=True)
    (folder / _MARK).write_text("made by `kdcache demo`, which may replace what it made in this folder\n")
    return folder


def _remove_demo(folder: Path) -> None:
    others = sorted(path.name for path in folder.iterdir() if not re.fullmatch(_MADE, path.name))
    if others:
        raise ConfigError(f"{folder} holds {', '.join(others[:3])}, which no demo made; choose another --out")
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _program(words: tuple[str, ...]) -> list[str]:
    """The command of this very installation, whatever PATH says."""
    own = Path(sys.executable).parent / words[0]
    return [str(own) if own.exists() else words[0], *words[1:]]


def _environment(threads: int | None) -> dict[str, str]:
    extra = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**os.environ, **extra}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _SERVER_START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(
                f"the server ended with exit code {process.returncode}:\n{log.read_text()[-2000:]}"
            )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ServerError(f"the server did not answer within {_SERVER_START_S:.0f} s; its log is {log}")
