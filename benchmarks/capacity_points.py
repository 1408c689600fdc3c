"""The capacity model against what was measured, each line at another size than it was predicted from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.caches import write_large_cache
from benchmarks.capacity_builds import TILE_ROWS, Built, built
from benchmarks.capacity_model import (
    TILE_OPEN_BYTES,
    TILE_OPEN_S,
    Assumed,
    Build,
    Measured,
    Serving,
    Store,
    Work,
    number,
)
from benchmarks.capacity_opening import opening
from benchmarks.report import RESULTS, write_results
from benchmarks.summary import figure
from cache_builder.format.statistics import StatisticSums, TileStatistics
from logit_server.run import serving
from logit_server.settings import Settings

TOLERANCE = 0.25
"""How far a prediction may be from what was measured."""
OPENED_TILES = 2000
PAGE_ROWS = 200_000
_SUMS = {
    "records": 32768, "labelled": 32768, "top1": 26123, "top5": 31456, "nll": 21234.567890123,
    "entropy": 23456.789012345, "bin_records": (2184,) * 15, "bin_top1": (1234,) * 15,
    "bin_confidence": (1034.123456789012,) * 15, "entropy_records": (1638,) * 20,
}  # fmt: skip
NOTES = f"""
Predicted by `benchmarks/capacity_model.py` over measured; the model promises to be within
{TOLERANCE:.0%}. Objects, PUT requests, bytes: a cache of noise, 1,024 rows and 16 views in tiles of 8
views and {TILE_ROWS} rows, built on an S3 server on loopback that counts. The bytes of a record are
those of the cache of 512 rows and 8 views; other requests (GET, HEAD, LIST, DELETE) are its, whatever
the rows, and three for each row block of a later view group, which reads two commits and the digests.
Requests for leases are left out: they are renewed by the clock.
Opening: the index of a cache of {OPENED_TILES:,} tiles, of which the model takes the same for each.
Processor time of a server: the line through 256 and 4,096 rows by 64 connections (`server_rivals`),
compared with another benchmark's 256 rows by 4 (`server`). Ids: bytes, offsets, and the hashes while
they are compared, against `ids`. A builder's memory: that of 62,500 rows and what `rows_memory` says
that a row adds, against 250,000 rows (`million`, which was measured before ids were streamed). Pages:
a view of {PAGE_ROWS:,} rows in a server, by its metrics.
"""

_READS_OF_LATER_GROUP = 3
_DECIMAL_BYTES = 6.9
"""Of the numbers below ten million in decimal, on average."""


@dataclass(frozen=True)
class Point:
    """One comparison."""

    what: str
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """1 where the model is right."""
        return self.predicted / self.measured


def main() -> None:
    """Measure, print and keep the table."""
    known = Measured.read()
    points = [*_of_builds(list(built()), known), *_of_opening(), *_of_results(known), _of_pages()]
    rows = [[point.what, point.predicted, point.measured, point.ratio] for point in points]
    write_results(
        "capacity_points",
        "The capacity model against what was measured",
        ["what", "predicted", "measured", "ratio"],
        rows,
        NOTES,
    )


def _of_builds(caches: list[Built], known: Measured) -> Iterator[Point]:
    small, _, large = caches
    works = [_work(cache, small.record_bytes) for cache in caches]
    store, of_small = Store(works[2]), Store(works[0])
    yield Point("objects of a store", store.objects, len(large.sizes))
    build = Build(works[2], known, Assumed())
    yield Point("PUT requests of a build, without leases", build.puts - build.lease_puts, large.puts)
    reads = small.reads + _READS_OF_LATER_GROUP * works[2].blocks * (works[2].groups - 1)
    yield Point("other requests of a build", reads, large.reads)
    once = sum(small.sizes.values()) - of_small.bytes
    yield Point("bytes of a store", store.bytes + once, sum(large.sizes.values()))
    yield Point("bytes of the index of the commits", store.index_bytes, large.sizes["commits/index"])


def _work(cache: Built, record_bytes: float) -> Work:
    return _noise(cache.rows, cache.views, record_bytes=record_bytes, id_bytes=4)


def _noise(
    rows: int, views: int = 1, record_bytes: float = 0.0, packed_bytes: float = 0.0, id_bytes: float = 0.0
) -> Work:
    return Work(
        "noise", rows, views, 0.0, record_bytes, packed_bytes, 0.0, id_bytes=id_bytes, tile_rows=TILE_ROWS
    )


def _of_opening() -> Iterator[Point]:
    found = opening(OPENED_TILES, TileStatistics.sealed(StatisticSums.model_validate(_SUMS)))
    yield Point("processor s to open a cache", found.tiles * TILE_OPEN_S, found.processor_s)
    yield Point("bytes of memory of an open cache", found.tiles * TILE_OPEN_BYTES, found.memory_bytes)


def _of_results(known: Measured) -> Iterator[Point]:
    server, ids, million = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("server", "ids", "million")
    )
    busy = {"client": "minimal", "rows in the cache": 1_281_167, "rows per request": Assumed().request_rows}
    measured_us = number(figure(server, busy, "kdcache CPU µs"))
    assumed = Assumed()
    # A trainer that takes as many images a second as it asks for at once sends one request a second.
    one = Serving(_noise(1), 1, assumed.request_rows, known, assumed)
    yield Point(f"processor us of a request of {assumed.request_rows} rows", one.cores * 1e6, measured_us)
    decimal = {"ids": "decimal, DecimalIds"}
    per_id = number(figure(ids, decimal, "table, bytes per id"))
    yield Point("bytes of memory of an id", _noise(1, id_bytes=_DECIMAL_BYTES).id_table_bytes, per_id)
    rows = 250_000
    peak = number(figure(million, {"rows": rows}, "peak MB")) * 2**20
    yield Point("memory of a builder", known.builder_memory(rows), peak)


def _of_pages() -> Point:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.zarr"
        manifest = write_large_cache(path, PAGE_ROWS)
        record_bytes = manifest.codec.layout.record_bytes
        with serving(Settings(caches=(str(path),), port=0)) as base:
            url = f"{base}/v1/caches/{manifest.name}/views/0/records"
            httpx2.get(url, timeout=120).raise_for_status()
            metrics = httpx2.get(f"{base}/metrics").text
    held = next(line for line in metrics.splitlines() if line.startswith("kdcache_page_bytes "))
    predicted = _noise(PAGE_ROWS, packed_bytes=record_bytes).page_bytes
    return Point("bytes of the pages of a view", predicted, float(held.split()[1]))


if __name__ == "__main__":
    main()
