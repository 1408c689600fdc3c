"""Processor time and latency of one busy server worker against a bare application, Arrow Flight and Zarr."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.caches import IMAGENET_ROWS, write_large_cache
from benchmarks.http_load import Requests, http_load
from benchmarks.report import RESULTS, write_results
from benchmarks.rivals import Server, flight_load, rival, serve_bare, serve_flight, serve_zarr
from cache_builder.format.wire import ROW_TYPES, ROWS

mpl.use("agg")
from matplotlib import pyplot as plt  # after the backend is chosen

CACHE_ROWS = (50_000, IMAGENET_ROWS)
REQUEST_ROWS = (256, 4096)
CONNECTIONS = (1, 8, 64)
ROUNDS = 5
COUNTS = {"kdcache": 1.0, "bare": 1.0, "flight": 0.25, "zarr": 0.0}
"""Requests of each server in a round, as a share of a cell's; Zarr gets the fewest that there can be."""
CELL_REQUESTS = {1: 40_000, 256: 2400, 4096: 900}
"""Requests in one round, by rows of a request."""
BODIES = 64
RECORD_BYTES = 77

COLUMNS = [
    "rows in the cache", "rows per request", "connections", "server", "CPU µs", "CPU ratio to kdcache",
    "lower quartile", "upper quartile", "p50 ms", "p99 ms", "requests/s",
]  # fmt: skip
NOTES = f"""
Processor time of the server per request (all its threads), median of {ROUNDS} rounds taken in turn; the ratio
is that of the rounds' pairs, what the other one takes over what kdcache takes: from 0.8 on the goal is met
where the other is the bare application, from 1 on kdcache is ahead. Requests over raw sockets that stay open
(Flight: its own client, a thread a connection, whose own time is in its latencies), each connection waits for
its answer, so that the worker is the bottleneck from 8 connections on. Rows are drawn at random from one view
and asked for as raw uint32, answered with records of 77 bytes. "bare": an ASGI application under uvicorn as
it comes (httptools, uvloop) that sends one of 64 prebuilt answers of the same length, without looking at the
request. "flight": pyarrow's server with the view in memory. "zarr": the same uvicorn, each request reads its
rows from the store's open arrays; of a cache of 50,000 rows only.
"""


@dataclass
class Measured:
    """What one server did in one cell."""

    cpu_s: list[float] = field(default_factory=list)
    """Per request, by round."""
    rates: list[float] = field(default_factory=list)
    taken_s: list[float] = field(default_factory=list)


def main() -> None:
    """Measure, print, keep the table and the picture."""
    lines = [line for rows in CACHE_ROWS for line in measure_cache(rows)]
    write_results("server_rivals", "One server worker against three others", COLUMNS, lines, NOTES)
    draw(lines, RESULTS / "server_rivals.png")


def measure_cache(rows: int) -> Iterator[list[object]]:
    """The lines of the table for a cache of so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.zarr")
        manifest = write_large_cache(path, rows)
        with contextlib.ExitStack() as stack:
            servers = {
                "kdcache": stack.enter_context(product(path)),
                "flight": stack.enter_context(rival(serve_flight, str(path), 0, load=flight_load)),
            }
            if rows < IMAGENET_ROWS:
                servers["zarr"] = stack.enter_context(rival(serve_zarr, str(path), 0))
            for ids in REQUEST_ROWS:
                with rival(serve_bare, ids * RECORD_BYTES) as bare:
                    for connections in CONNECTIONS:
                        requests = Requests(f"/v1/caches/{manifest.name}/records?view=0", bodies(rows, ids))
                        measured = compare(servers | {"bare": bare}, requests, ids, connections)
                        for name, found in measured.items():
                            yield [rows, ids, connections, name, *cells(found, measured["kdcache"])]


def bodies(rows: int, ids: int) -> list[bytes]:
    """Request bodies of ``ids`` rows each."""
    drawn = np.random.default_rng(ids).integers(0, rows, (BODIES, ids), dtype=np.uint32)
    return [body.astype(ROW_TYPES[ROWS]).tobytes() for body in drawn]


def compare(
    servers: dict[str, Server], requests: Requests, ids: int, connections: int
) -> dict[str, Measured]:
    """Every server in turn, the order reversed every other round."""
    measured = {name: Measured() for name in servers}
    for server in servers.values():
        server.load(server.base, requests, connections, connections)  # pages come in, code warms up
    for index in range(ROUNDS):
        for name in list(servers)[:: 1 if index % 2 == 0 else -1]:
            count = max(int(CELL_REQUESTS[ids] * COUNTS[name]), connections)
            if name == "zarr" and index >= 2:
                continue  # each takes seconds
            ask(servers[name], measured[name], requests, connections, count)
    return measured


def ask(server: Server, into: Measured, requests: Requests, connections: int, count: int) -> None:
    """One round of one server."""
    before, begun = server.processor_s(), time.perf_counter()
    taken = server.load(server.base, requests, connections, count)
    elapsed = time.perf_counter() - begun
    into.cpu_s.append((server.processor_s() - before) / len(taken))
    into.rates.append(len(taken) / elapsed)
    into.taken_s += taken


def cells(found: Measured, ours: Measured) -> list[object]:
    """The cells of a line from its fifth column on."""
    ratios = [theirs / mine for theirs, mine in zip(found.cpu_s, ours.cpu_s, strict=False)]
    lower, _, upper = statistics.quantiles(ratios, n=4)
    latencies = [1e3 * float(quantile) for quantile in np.quantile(found.taken_s, (0.5, 0.99))]
    return [
        1e6 * statistics.median(found.cpu_s), statistics.median(ratios), lower, upper, *latencies,
        statistics.median(found.rates),
    ]  # fmt: skip


def draw(lines: list[list[object]], path: Path) -> None:
    """The processor time of each server in each cell, and its latencies."""
    grounds = list(itertools.product(dict.fromkeys(line[0] for line in lines), REQUEST_ROWS))
    figure, axes = plt.subplots(2, len(grounds), figsize=(4 * len(grounds), 7), squeeze=False)
    for column, (rows, ids) in enumerate(grounds):
        cell = [line for line in lines if line[0] == rows and line[1] == ids]
        for place, name in enumerate(COUNTS):
            of = [line for line in cell if line[3] == name]
            at, color = np.arange(len(of)) + 0.2 * (place - 1.5), f"C{place}"
            axes[0][column].bar(at, [line[4] for line in of], 0.18, label=name, color=color)
            middle, high = np.array([line[8] for line in of]), np.array([line[9] for line in of])
            axes[1][column].bar(at, middle, 0.18, yerr=[middle * 0, high - middle], capsize=2, color=color)
        axes[0][column].set_title(f"{ids:,} of {rows:,} rows")
        for axis in (axes[0][column], axes[1][column]):
            axis.set_yscale("log")
            axis.set_xticks(range(len(CONNECTIONS)), [str(count) for count in CONNECTIONS])
        axes[1][column].set_xlabel("connections")
    axes[0][0].set_ylabel("processor time of a request, µs")
    axes[1][0].set_ylabel("latency, ms: p50, bar to p99")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", ncols=len(COUNTS))
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(path, dpi=100)
    plt.close(figure)


@contextlib.contextmanager
def product(cache: Path | str, **variables: str) -> Iterator[Server]:
    """``python -m logit_server`` on a free port, with these variables of the environment."""
    environment = os.environ | {"KDCACHE_CACHES": str(cache), "KDCACHE_PORT": "0"} | variables
    with subprocess.Popen(
        [sys.executable, "-m", "logit_server"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Server(process.stdout.readline().partition("/v1/")[0], process.pid, http_load)
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
