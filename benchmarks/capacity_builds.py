"""Small caches of noise built on an S3 server on loopback (moto) that counts what it is asked for."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import nn

from benchmarks.million import SIDE, Noise
from cache_builder import datasets
from cache_builder.build.pipeline import build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import BuildProgress
from tests.object_store import BUCKET, counted_http, objects, s3_server

TILE_ROWS = 64
SIZES = ((512, 8), (1024, 8), (1024, 16))
"""(rows, views): the second has twice the row blocks, the third twice the view groups of the second."""


def linear() -> nn.Module:
    """A hundred logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 100))


@dataclass(frozen=True)
class Built:
    """A cache on the object store, and what its build asked for."""

    rows: int
    views: int
    requests: Counter[str]
    """By method, without those for leases."""
    sizes: dict[str, int]
    """Bytes of each object by its key."""

    @property
    def record_bytes(self) -> float:
        """Stored bytes of a record."""
        total = sum(size for key, size in self.sizes.items() if re.match(r"records/.*/c/", key))
        return total / (self.rows * self.views)

    @property
    def puts(self) -> int:
        """Objects written."""
        return self.requests["PUT"]

    @property
    def reads(self) -> int:
        """Everything else."""
        return self.requests.total() - self.puts


def built() -> Iterator[Built]:
    """Build the caches of :data:`SIZES`, one after the other."""
    datasets.DATASETS["noise"] = Noise
    with s3_server(), counted_http() as seen:
        for rows, views in SIZES:
            seen.clear()
            torch.manual_seed(0)
            name = f"{rows}-{views}.zarr"
            settings = BuildSettings(
                teacher="benchmarks.capacity_builds:linear", weights="random", data=f"noise:{rows}",
                out=f"s3://{BUCKET}/{name}", views=views, recipe="pad-crop-flip", batch_size=256, workers=0,
                input_size=SIDE, tile_rows=TILE_ROWS,
            )  # fmt: skip
            build(settings, BuildProgress(Console(file=io.StringIO())))
            sizes = {key: len(data) for key, data in objects(name).items()}
            # Leases are renewed by the clock: how often depends on how busy the machine is.
            kept = (line for line in seen if not line.endswith("/.kdcache-builder"))
            requests = Counter(line.partition(" ")[0] for line in kept)
            yield Built(rows, views, requests, sizes)
