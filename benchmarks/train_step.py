"""A training step with a served teacher against the same step on hard labels, and where the difference goes.

Two runs live in one process and take steps in turn: same student, same images, same order. The server is a
process of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import write_results
from cache_builder.datasets import DATASETS, ArraySource
from cache_builder.tensors.decode import RecordDecoder
from tests.trainer.replay_caches import write_replay_cache
from trainer.losses import LOSSES
from trainer.replay.batches import TrainingStream
from trainer.run.assemble import Run, assemble
from trainer.run.loop import train_step
from trainer.run.metrics import TrainMeter
from trainer.run.settings import TrainSettings
from trainer.teacher.client import TeacherCache

SAMPLES, CLASSES, VIEWS, BATCH, SIZE = 1024, 1000, 2, 64, 32
TOP_K, RANK = 5, 64
WARM_UP, STEPS = 4, 48
STUDENT = "resnet20"
Clocks = tuple[float, float]
"""Seconds by the clock, and of processor time of all threads of this process."""
OBJECTIVES = {
    "kd": "ce*0.1 + kd(temperature=4)*0.9",
    "dkd": "ce*1 + dkd*1",
    "pld": "pld*1",
    "kd, a request per batch": "ce*0.1 + kd(temperature=4)*0.9",
}


def main() -> None:
    """Measure, print and keep both tables."""
    DATASETS["benchmark"] = lambda _: images()
    # One core is left to the server and the fetching thread, as on a machine with a GPU.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        write_steps(Path(folder), url)
        write_parts(url)


def write_steps(folder: Path, url: str) -> None:
    """Whole steps: fetch, decode, forward, loss, backward, optimiser."""
    rows = []
    for number, (name, objective) in enumerate(OBJECTIVES.items()):
        fetch = "batch" if "request" in name else "view"
        taught, hard = in_turn(folder / str(number), url, objective, fetch)
        (taught_s, taught_work), (hard_s, hard_work) = map(undisturbed, (taught, hard))
        rows.append([name, 1e3 * taught_s, 1e3 * hard_s, taught_s / hard_s, taught_work / hard_work])
    write_results(
        "train_step",
        "A training step with a served teacher against hard labels",
        ["objective", "ms per step", "hard labels, ms", "ratio", "processor time, ratio"],
        rows,
        f"{STUDENT}, {BATCH} images of {SIZE} px, {CLASSES} classes, K = {TOP_K}, r = {RANK}; lower "
        f"deciles over {STEPS} steps taken in turn in one process (the machine does other things too). Both "
        "count accuracy; the distilled run also counts agreement with the teacher. One core is left to the "
        "server and the fetching thread, whose time the last column includes. The target is 1.02.",
    )


def write_parts(url: str) -> None:
    """What a step adds, alone: seconds that overlap with nothing."""
    with TeacherCache.open(url) as cache:
        rows_drawn = np.random.default_rng(0).integers(0, SAMPLES, 256)
        records = torch.from_numpy(cache.fetch(0, rows_drawn))
        decode = RecordDecoder(cache.codec)
        student = torch.randn(256, CLASSES, requires_grad=True)
        teacher, labels = decode(records), torch.from_numpy(rows_drawn % CLASSES)
        rows: list[list[object]] = [
            ["fetch over loopback (in its own thread)", 1e3 * median_s(lambda: cache.fetch(0, rows_drawn))],
            ["decode on the device", 1e3 * median_s(lambda: decode(records))],
        ]
        for name in ("ce", "kd", "dkd", "pld"):  # benchmarks/losses.py has them all
            loss = LOSSES[name]()

            def both(loss: Callable[..., torch.Tensor] = loss) -> None:
                student.grad = None
                loss(student, teacher, labels).backward()

            rows.append([f"{name}, forward and backward", 1e3 * median_s(both)])
    write_results(
        "train_step_parts",
        "What a served teacher adds to a step",
        ["part", "ms per 256 samples"],
        rows,
        f"{CLASSES} classes, {records.shape[1]} bytes a record; medians of 50 calls, one after another.",
    )


def undisturbed(times: list[Clocks]) -> Clocks:
    """The lower decile of each clock."""
    wall, work = (statistics.quantiles(clock, n=10)[0] for clock in zip(*times, strict=True))
    return wall, work


def in_turn(folder: Path, url: str, objective: str, fetch: str) -> tuple[list[Clocks], list[Clocks]]:
    """Each step of a distilled run and of a hard-label run that take turns."""
    with ExitStack() as stack:
        runs = [
            Stepper.open(stack, TrainSettings(
                data="benchmark:", out=folder / name, cache=url, student=STUDENT, loss=loss, epochs=100,
                batch_size=BATCH, fetch=fetch,
            ))
            for name, loss in (("taught", objective), ("hard", "ce*1"))
        ]  # fmt: skip
        for _ in range(WARM_UP):
            for run in runs:
                run.step()
        times: tuple[list[Clocks], list[Clocks]] = ([], [])
        for index in range(STEPS):
            for which in (0, 1) if index % 2 == 0 else (1, 0):
                times[which].append(runs[which].step())
        return times


@dataclass
class Stepper:
    """One run that takes a step when it is told to."""

    run: Run
    stream: TrainingStream
    meter: TrainMeter

    @classmethod
    def open(cls, stack: ExitStack, settings: TrainSettings) -> Stepper:
        """Assemble a run and its stream."""
        run = assemble(settings, stack)
        stream = stack.enter_context(
            TrainingStream(run.dataset, run.plan, 0, run.caches, fetch=settings.fetch, workers=run.workers)
        )
        run.model.train()
        return cls(run, stream, TrainMeter(run.accelerator.device))

    def step(self) -> Clocks:
        """Seconds of one step, from asking for the batch to the end of the optimiser."""
        started, worked = time.perf_counter(), time.process_time()
        batches = self.stream.take(1, lambda: False)
        assert batches is not None
        train_step(self.run, batches, 0, 0.01, self.meter)
        if self.run.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, time.process_time() - worked


def images() -> ArraySource:
    """Smooth noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (SAMPLES, SIZE // 4, SIZE // 4, 3), dtype=np.uint8)
    pictures = coarse.repeat(4, axis=1).repeat(4, axis=2)
    names = tuple(f"class {label}" for label in range(CLASSES))
    return ArraySource("benchmark:", pictures, (np.arange(SAMPLES) % CLASSES).astype(np.int32), names)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A cache of the images and a server of it in another process; gives the cache's URL."""
    path = folder / "cache.zarr"
    write_replay_cache(path, images(), views=VIEWS, image_size=SIZE, top_k=TOP_K, rank=RANK)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "KDCACHE_CACHES": f"c={path}", "KDCACHE_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "logit_server"], env=environment)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}/v1/caches/c"
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer")


def median_s(call: Callable[[], object], repeats: int = 50) -> float:
    """Median seconds of a call."""
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
