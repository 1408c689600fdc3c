"""Two servers of one cache behind a load balancer, one killed after the other while a student is trained."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np

from benchmarks.report import write_results
from benchmarks.round_robin import RoundRobin, balanced
from cache_builder.datasets import LimitedSource, open_source
from cache_builder.format import KDCacheError
from tests.trainer.replay_caches import write_replay_cache
from tests.trainer.same_runs import differing
from tests.trainer.servers import free_port
from trainer.teacher.client import TeacherCache

SAMPLES, BATCH, VIEWS = 1_184, 32, 4
EPOCHS, KILLS = 20, 2
_START_S = 240.0
_RUN_S = 1800.0

NOTES = f"""
Two `kdcache serve` processes of one cache (digits, {SAMPLES:,} samples, {VIEWS} views) on loopback behind a
round-robin balancer that gives every request to the next of them and repeats none. `kdtrain --fetch batch`
({EPOCHS} epochs of {SAMPLES // BATCH} steps) trains through it while a second client fetches random rows and
compares each answer with the cache on the disk. Again and again one replica, in turn, is killed with SIGKILL
(its whole process group) while both are used, and started anew after some epochs.
"Answered with 502" are requests that the balancer could not pass on, "cut" answers whose replica died on the
way; "repeated by the trainer" are the requests of `kdtrain` that met one of these and were sent again. The
undisturbed run reads the cache from the disk. Compared are all bytes of the weights, what their headers say,
and every row of `metrics.jsonl` but its times.
"""

COLUMNS = ["what", "value"]


def main() -> None:
    """Train, kill, compare, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), EPOCHS, KILLS)
    write_results("replicas", "A student trained from two replicas", COLUMNS, found.rows(), NOTES)


@dataclass
class Found:
    """What happened."""

    steps: int
    kills: int
    exit_code: int
    answered: list[int]
    """Whole answers by replica."""
    refused: int
    cut: int
    repeated: int
    checked: int
    """Answers to the second client."""
    wrong: int
    """How many of them were not what the cache holds."""
    differing: list[str]

    def rows(self) -> list[list[object]]:
        """The lines of the table."""
        return [
            ["steps trained", self.steps],
            ["replicas killed and started anew", self.kills],
            ["exit code of kdtrain", self.exit_code],
            *([f"answers of replica {number}", count] for number, count in enumerate(self.answered, 1)),
            ["requests answered with 502", self.refused],
            ["answers cut", self.cut],
            ["requests repeated by the trainer", self.repeated],
            ["answers to the second client", self.checked],
            ["of these not the bytes of the cache", self.wrong],
            ["differs from the undisturbed run", ", ".join(self.differing) or "nothing"],
        ]


def measure(folder: Path, epochs: int, kills: int) -> Found:
    """One undisturbed run and one with so many kills, in turn of the one replica and of the other."""
    cache = folder / "digits.zarr"
    write_replay_cache(cache, LimitedSource(open_source("digits:train"), SAMPLES), views=VIEWS)
    replicas = [Replica(cache, folder / f"replica-{number}") for number in (1, 2)]
    with contextlib.ExitStack() as stack:
        for replica in replicas:
            stack.callback(replica.stop)
            replica.start()
        alone = stack.enter_context(_training(folder / "undisturbed", str(cache), epochs))
        for replica in replicas:
            replica.wait()
        url, balancer = stack.enter_context(balanced([replica.url for replica in replicas]))
        reader = stack.enter_context(Reader.reading(f"{url}/v1/caches/c", str(cache)))
        run = folder / "disturbed"
        training = stack.enter_context(_training(run, f"{url}/v1/caches/c", epochs))
        _kill_in_turn(replicas, run, training, epochs, kills)
        code = training.wait(_RUN_S)
        if alone.wait(_RUN_S):
            raise RuntimeError(_said(folder / "undisturbed"))
        reader.stop.set()
        reader.thread.join()
        return _found(folder, epochs, kills, code, balancer, reader)


def _found(folder: Path, epochs: int, kills: int, code: int, balancer: RoundRobin, reader: Reader) -> Found:
    run = folder / "disturbed"
    if code:
        raise RuntimeError(_said(run))
    if reader.failure is not None:
        raise reader.failure
    return Found(
        steps=epochs * (SAMPLES // BATCH),
        kills=kills,
        exit_code=code,
        answered=list(balancer.answered.values()),
        refused=balancer.refused,
        cut=balancer.cut,
        repeated=_said(run).count("trying again"),
        checked=reader.checked,
        wrong=reader.wrong,
        differing=differing(run, folder / "undisturbed"),
    )


def _kill_in_turn(
    replicas: list[Replica], run: Path, training: subprocess.Popen[bytes], epochs: int, kills: int
) -> None:
    """Kill one, let the run go on with the other, start it anew, and so on, spread over the run."""
    share = epochs / (2 * kills + 1)
    for number in range(kills):
        replica = replicas[number % len(replicas)]
        _wait_for_rows(run, training, int((2 * number + 1) * share))
        replica.kill()
        _wait_for_rows(run, training, int((2 * number + 2) * share))
        replica.start()
        replica.wait()


class Replica:
    """One `kdcache serve` process, always at the same port."""

    def __init__(self, cache: Path, folder: Path) -> None:
        folder.mkdir()
        self._port, self._log = free_port(), folder / "log"
        self.url = f"http://127.0.0.1:{self._port}"
        flags = {"--host": "127.0.0.1", "--port": self._port, "--workers": 1, "--page-dir": folder}
        words = [f"c={cache}", *(word for pair in flags.items() for word in pair)]
        self._command = [sys.executable, "-m", "kdcache", "serve", *map(str, words)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its processes are a group of their own."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Return when it is ready."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == httpx2.codes.OK:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"a server did not start: {self._log.read_text()}")

    def kill(self) -> None:
        """End it as a machine that loses its power would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as a scheduler would, where it runs."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.wait(60)
            self._process = None


@dataclass
class Reader:
    """A second client: its answers are compared with the cache on the disk."""

    url: str
    expected: np.ndarray
    """Records uint8 [V, N, record_bytes]."""
    stop: threading.Event = field(default_factory=threading.Event)
    checked: int = 0
    wrong: int = 0
    failure: KDCacheError | None = None
    """What ended it, where something did."""

    def __post_init__(self) -> None:
        """Its thread, not started."""
        self.thread = threading.Thread(target=self._run, name="second client")

    @classmethod
    @contextlib.contextmanager
    def reading(cls, url: str, cache: str) -> Iterator[Reader]:
        """One that reads within the block, a hundred times a second at most."""
        with TeacherCache.open(cache) as local:
            reader = cls(url, np.stack([local.fetch_page(view) for view in range(VIEWS)]))
        reader.thread.start()
        try:
            yield reader
        finally:
            reader.stop.set()
            reader.thread.join()

    def _run(self) -> None:
        try:
            with TeacherCache.open(self.url) as remote:
                self._compare(remote)
        except KDCacheError as error:
            self.failure = error

    def _compare(self, remote: TeacherCache) -> None:
        rng = np.random.default_rng(0)
        while not self.stop.wait(0.01):
            view, rows = int(rng.integers(VIEWS)), rng.integers(SAMPLES, size=BATCH)
            found = remote.fetch(view, rows)
            self.checked += 1
            self.wrong += not np.array_equal(found, self.expected[view, rows])


@contextlib.contextmanager
def _training(out: Path, cache: str, epochs: int) -> Iterator[subprocess.Popen[bytes]]:
    """A `kdtrain` process; what it says goes into a file beside its folder."""
    flags = {
        "--cache": cache, "--data": "digits:train", "--limit": SAMPLES, "--batch-size": BATCH,
        "--student": "tests.trainer.runs:with_dropout", "--loss": "ce*0.5 + kd*0.5", "--epochs": epochs,
        "--fetch": "batch", "--device": "cpu", "--workers": 0, "--out": out,
    }  # fmt: skip
    words = [str(word) for pair in flags.items() for word in pair]
    command = [sys.executable, "-m", "kdcache", "train", *words, "--no-tensorboard"]
    with out.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for_rows(run: Path, training: subprocess.Popen[bytes], count: int) -> None:
    """Return when so many epochs are done."""
    metrics = run / "metrics.jsonl"
    until = time.monotonic() + _RUN_S
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        if training.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the run did not come to epoch {count}: {_said(run)}")
        time.sleep(0.01)


def _said(run: Path) -> str:
    return run.with_suffix(".log").read_text()


if __name__ == "__main__":
    main()
