"""Memory and start-up time of a server: a cache of ImageNet's size with eight views, and a hundred caches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil  # type: ignore[import-untyped]

from benchmarks.caches import IMAGENET_ROWS, write_large_cache
from benchmarks.report import write_results
from benchmarks.server_rivals import product
from tests.caches import synthetic_logits, write_synthetic_cache

VIEWS = 8
CACHES = 100

COLUMNS = [
    "caches", "rows", "views", "step", "seconds", "processor s of the worker", "worker MiB",
    "with its processes MiB",
]  # fmt: skip
NOTES = """
Since the start; other work shares the two cores, so the processor's seconds tell more. Resident memory counts
what is shared with other processes too: libraries, and the records of mapped pages.
"Listening": the port is open and the URLs are printed; "by id": the first request for a record by its id,
which waits for the index of the ids of its cache.
"""


def main() -> None:
    """Measure, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [*measure_one(Path(folder)), *measure_many(Path(folder))]
    write_results("server_start", "Start and memory of a server", COLUMNS, lines, NOTES)


def measure_one(folder: Path, rows: int = IMAGENET_ROWS, views: int = VIEWS) -> Iterator[list[object]]:
    """The lines of one large cache."""
    path = folder / "one.zarr"
    name = write_large_cache(path, rows, views).name
    yield from _started([path], name, f"n{7 // 1300:08d}/image_{7:08d}.JPEG", [1, rows, views])


def measure_many(folder: Path, count: int = CACHES) -> Iterator[list[object]]:
    """The lines of many small caches."""
    logits = synthetic_logits(2, 1000, 100)
    paths = [folder / f"cache_{number:03d}.zarr" for number in range(count)]
    for path in paths:
        write_synthetic_cache(path, logits, sketch=True, tile_rows=512)
    yield from _started(paths, paths[0].stem, "dir/img_00007.png", [count, 1000, 2])


def _started(paths: list[Path], name: str, sample_id: str, what: list[object]) -> Iterator[list[object]]:
    caches = ",".join(str(path) if len(paths) == 1 else f"{path.stem}={path}" for path in paths)
    begun = time.perf_counter()
    with product(caches) as server:
        url = f"{server.base}/v1/caches/{name}/records"
        yield [*what, "listening", time.perf_counter() - begun, server.processor_s(), *memory(server.pid)]
        with httpx2.Client(timeout=600) as client:
            client.get(f"{server.base}/healthz").raise_for_status()
            yield [*what, "answering", time.perf_counter() - begun, server.processor_s(), *memory(server.pid)]
            client.post(url, json={"ids": [sample_id]}).raise_for_status()
            yield [*what, "by id", time.perf_counter() - begun, server.processor_s(), *memory(server.pid)]


def memory(pid: int) -> tuple[float, float]:
    """MiB of a process, and with those that it started."""
    process = psutil.Process(pid)
    own = process.memory_info().rss
    return own / 2**20, (own + sum(child.memory_info().rss for child in process.children())) / 2**20


if __name__ == "__main__":
    main()
