"""Requests to the store that one row costs: they must not grow with the number of tiles in a view."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
from rich.console import Console

from benchmarks.report import write_results
from cache_builder.look.inspect import describe, show
from logit_server.run import serving
from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.counting import Requests, counted_requests
from trainer.teacher.local import StoreSource

TILES = (8, 32, 128)
TILE_ROWS = 32
VIEWS = 2

NOTES = f"""
Requests (`get`, `getsize`, `exists`, `list`) to a local store that counts them, for a cache of {VIEWS} views
in one group and the given number of tiles of {TILE_ROWS} rows. "Local" is what a trainer without a server
does (`StoreSource.records` of one row); "server" is one `POST …/records` of one row over loopback. "Before":
when a page was a whole view (2026-11-30). Opening reads manifest and index. `inspect --sample` reads
every byte once, to compare it with the commits, and asks for the size of every object, which is not counted.
"""

BEFORE = {
    "local: open": (9, 33, 129),
    "local: one row": (156, 588, 2316),
    "local: the same row again": (0, 0, 0),
    "local: a row of another block": (0, 0, 0),
    "local: then the whole view": (0, 0, 0),
    "server: start": (28, 52, 148),
    "server: one row": (157, 589, 2317),
    "server: the same row again": (0, 0, 0),
    "server: a row of another block": (0, 0, 0),
    "inspect --sample": (385, 1441, 5665),
}
"""Requests by reading and number of tiles, when a page was a whole view."""


def main() -> None:
    """Count, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [line for tiles in TILES for line in measure(Path(folder, f"{tiles}.zarr"), tiles)]
    columns = ["tiles", "reading", "before", "requests"]
    write_results("requests", "Requests to the store", columns, rows, NOTES)


def measure(path: Path, tiles: int) -> Iterator[list[object]]:
    """The lines of the table for a cache of so many tiles."""
    write_synthetic_cache(path, synthetic_logits(VIEWS, tiles * TILE_ROWS, 40), sketch=True)
    for reading, count in (*_locally(path), *_over_http(path), *_inspected(path)):
        yield [tiles, reading, BEFORE[reading][TILES.index(tiles)], count]


def _locally(path: Path) -> Iterator[tuple[str, int]]:
    with counted_requests() as requests:
        source = StoreSource(str(path), patience_s=0)
        yield "local: open", requests.taken()
        for reading, row in (("one row", 5), ("the same row again", 5), ("a row of another block", 40)):
            source.records(1, np.array([row]))
            yield f"local: {reading}", requests.taken()
        source.page(1)
        yield "local: then the whole view", requests.taken()


def _over_http(path: Path) -> Iterator[tuple[str, int]]:
    with counted_requests() as requests, _client(path) as client:
        yield "server: start", requests.taken()
        for reading, row in (("one row", 5), ("the same row again", 5), ("a row of another block", 40)):
            client.post("records?view=1", json={"rows": [row]}).raise_for_status()
            yield f"server: {reading}", requests.taken()


@contextlib.contextmanager
def _client(path: Path) -> Iterator[httpx2.Client]:
    with (
        serving(Settings(caches=(str(path),), port=0)) as base,
        httpx2.Client(base_url=f"{base}/v1/caches/synthetic/") as client,
    ):
        yield client


def _inspected(path: Path) -> Iterator[tuple[str, int]]:
    with counted_requests() as requests:
        show(describe(str(path), "dir/img_00005.png", 1), Console(file=io.StringIO()))
        yield "inspect --sample", _without_sizes(requests)


def _without_sizes(requests: Requests) -> int:
    """All requests but those for the sizes of objects."""
    del requests["getsize"]
    return requests.taken()


if __name__ == "__main__":
    main()
