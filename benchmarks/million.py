"""Memory of a build over many rows: peak resident memory must not grow with N.

The teacher is a linear map and the images are noise of 8 pixels, made when they are asked for, so that what
is measured is the builder: ids, order, tiles, encoding, compression, commits.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from benchmarks.report import write_results
from cache_builder import datasets
from cache_builder.build.pipeline import build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import BuildProgress
from cache_builder.datasets.source import ImageSample, pixel_sample
from cache_builder.format.ids import DecimalIds
from cache_builder.look.inspect import cache_size

ROWS = (62_500, 250_000, 1_000_000)
CLASSES, SIDE, VIEWS = 1000, 8, 1


class Noise:
    """N images of noise; image i is a function of i."""

    reads_files, mirrors = False, True
    side: int | None = SIDE
    class_names = None
    labels = None

    def __init__(self, argument: str) -> None:
        self.spec = f"noise:{argument}"
        self.ids: Sequence[str] = DecimalIds(int(argument))

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> ImageSample:
        """Eight by eight pixels."""
        words = np.random.Philox(key=index).random_raw(SIDE * SIDE * 3 // 8)
        return pixel_sample(words.view(np.uint8).reshape(SIDE, SIDE, 3))


def linear() -> nn.Module:
    """1,000 logits of rank 192."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))


def main() -> None:
    """Each size in a process of its own."""
    rows = []
    for count in ROWS:
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.million", str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(child.stdout.splitlines()[-1])
        rows.append(
            [count, found["seconds"], count / found["seconds"], found["peak_mb"], found["bytes_per_view"]]
        )
        print(rows[-1], flush=True)
    growth = (rows[-1][3] - rows[0][3]) / (ROWS[-1] - ROWS[0]) * 1e6
    write_results(
        "million",
        "Peak memory of a build over many rows",
        ["rows", "s", "rows/s", "peak MB", "bytes per view"],
        rows,
        f"{VIEWS} view of noise, a linear teacher of {CLASSES} classes, no loader processes. The peak is "
        "the process's largest resident set, some 500 MB of it torch and its like; it grows by "
        f"{growth:.0f} bytes a row.",
    )


def one(rows: int) -> dict[str, float]:
    """Build once; seconds, peak memory and size."""
    datasets.DATASETS["noise"] = Noise
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "noise.zarr"
        began = time.perf_counter()
        settings = BuildSettings(
            teacher="benchmarks.million:linear", weights="random", data=f"noise:{rows}", out=str(out),
            views=VIEWS, recipe="pad-crop-flip", batch_size=512, workers=0, input_size=SIDE,
        )  # fmt: skip
        result = build(settings, BuildProgress(Console(file=io.StringIO())))
        seconds = time.perf_counter() - began
        size = cache_size(str(out), result.manifest)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_mb": peak / 1024, "bytes_per_view": size.bytes_per_view}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(int(sys.argv[1]))))
    else:
        main()
