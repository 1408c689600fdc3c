"""What calibration takes: processor time and memory for few and for many classes.

    python -m benchmarks calibration

Logits as a small build has them (a falling spectrum, three quarters of the variance common to eight views),
for as many pairs as a build of 50,000 samples looks at. Each in a process of its own; memory is the most that
the process held beyond the logits and what it had imported.
"""

from __future__ import annotations

import multiprocessing
import re
import time
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import write_results
from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Scope
from cache_builder.calibration.pairs import group_rows
from cache_builder.format.manifest import CodecRequest

CLASSES = (10, 100, 1_000, 10_000, 21_841)
VIEWS, SAMPLES = 8, 50_000
_RANK, _DECAY, _SCALE = 512, 0.6, 4.0
_NOISE = 0.2


def main() -> None:
    """Calibrate for each number of classes."""
    rows = []
    for classes in CLASSES:
        queue: SimpleQueue[list[object]] = multiprocessing.get_context("spawn").SimpleQueue()
        process = multiprocessing.get_context("spawn").Process(target=_measure, args=(classes, queue))
        process.start()
        process.join()
        rows.append(queue.get())
        print(rows[-1], flush=True)
    columns = ["classes", "pairs", "logits, MB", "processor, s", "memory beyond them, MB", "record"]
    notes = f"--lose 0.02; logits of rank {_RANK} whose spread falls as i^-{_DECAY}, {VIEWS} views."
    write_results("calibration", "What calibration takes", columns, rows, notes)


def _measure(classes: int, queue: SimpleQueue[list[object]]) -> None:
    pairs = 8 * len(group_rows(SAMPLES, VIEWS, classes, 0))
    logits = logits_of(pairs, classes)
    # What was needed once, to import and to draw logits, would hide what is needed now.
    Path("/proc/self/clear_refs").write_text("5")
    before = _most_held()
    began = time.process_time()
    found = calibrate.fit(logits, CodecRequest(lose=0.02), None, Scope(VIEWS, SAMPLES * VIEWS))
    taken = time.process_time() - began
    grown = _most_held() - before
    said = found.codec.settings.described(classes)
    queue.put([classes, pairs, round(logits.nbytes / 1e6), round(taken, 1), round(grown), said])


def _most_held() -> float:
    """The most that this process held since it was asked to forget, in MB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def logits_of(pairs: int, classes: int) -> NDArray[np.float32]:
    """Made some at a time, so that the most that was held before is the logits themselves."""
    rng = np.random.default_rng(0)
    rank = min(_RANK, classes)
    spread = _SCALE * np.arange(1, rank + 1, dtype=np.float32) ** -_DECAY
    axes = rng.standard_normal((rank, classes), np.float32)
    logits = np.empty((pairs, classes), np.float32)
    for start in range(0, pairs, 64 * VIEWS):
        count = min(64 * VIEWS, pairs - start)
        common = np.repeat(rng.laplace(size=(count // VIEWS, rank)), VIEWS, axis=0) * 0.75**0.5
        own = rng.laplace(size=(count, rank)) * 0.25**0.5
        logits[start : start + count] = ((common + own) * spread).astype(np.float32) @ axes
        logits[start : start + count] += _NOISE * rng.standard_normal((count, classes), np.float32)
    return logits


if __name__ == "__main__":
    main()
