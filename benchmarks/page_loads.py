"""What requests for rows in memory wait while other pages are loaded, decoded in threads and in processes."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np

from benchmarks.caches import write_large_cache
from benchmarks.http_load import Requests, http_load
from benchmarks.report import write_results
from benchmarks.server_rivals import bodies, product
from cache_builder.format.wire import ROW_TYPES
from cache_builder.format.wire import ROWS as ROWS_TYPE

ROWS, VIEWS = 200_000, 4
RECORD_BYTES = 77
ROUNDS = 3
REQUESTS = 1000
READERS = (0, 2)

COLUMNS = [
    "readers", "p50 idle, ms", "p50 loading, ms", "p50 ratio", "p99 idle, ms", "p99 loading, ms", "p99 ratio",
    "loads while measured",
]  # fmt: skip
NOTES = f"""
One connection asks for 256 rows of a view that is in memory, {ROUNDS} times {REQUESTS:,} requests without and
with two other clients that ask for rows of every block of the other views, of which the page budget holds one
beside the first, so that blocks are loaded all the time. Readers 0: the worker's own threads decode, as it
was before 2026-12-01; 2: processes do. What else the machine does differs from minute to
minute: compare within a line.
"""


def main() -> None:
    """Measure, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.zarr")
        name = write_large_cache(path, ROWS, VIEWS).name
        lines = [measure(path, name, readers) for readers in READERS]
    write_results(
        "page_loads", "Requests for what is in memory, while pages are loaded", COLUMNS, lines, NOTES
    )


def measure(path: Path, name: str, readers: int) -> list[object]:
    """The line of the table for so many reader processes."""
    budget = {"KDCACHE_READERS": str(readers), "KDCACHE_PAGE_BYTES": str(2 * ROWS * RECORD_BYTES)}
    taken: dict[bool, list[float]] = {False: [], True: []}
    with product(path, **budget) as server:
        requests = Requests(f"/v1/caches/{name}/records?view=0", bodies(ROWS, 256))
        loads = 0
        for _ in range(ROUNDS):
            http_load(server.base, requests, 1, 200)
            taken[False] += http_load(server.base, requests, 1, REQUESTS)
            with loading(f"{server.base}/v1/caches/{name}/records") as loaded:
                taken[True] += http_load(server.base, requests, 1, REQUESTS)
                loads += len(loaded)
    quantiles = [1e3 * np.quantile(taken[key], q) for q in (0.5, 0.99) for key in (False, True)]
    p50, p99 = quantiles[1] / quantiles[0], quantiles[3] / quantiles[2]
    return [readers, *map(float, quantiles[:2]), float(p50), *map(float, quantiles[2:]), float(p99), loads]


@contextlib.contextmanager
def loading(records: str) -> Iterator[list[int]]:
    """Ask for rows of all blocks of the other views, one view after the other; gives the views so far."""
    loaded: list[int] = []
    stop = threading.Event()
    rows = np.arange(0, ROWS, 16_384).astype(ROW_TYPES[ROWS_TYPE]).tobytes()

    def load() -> None:
        with httpx2.Client(timeout=120, headers={"Content-Type": ROWS_TYPE}) as client:
            while not stop.is_set():
                view = 1 + len(loaded) % (VIEWS - 1)
                loaded.append(view)
                client.post(f"{records}?view={view}", content=rows).raise_for_status()

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield loaded
    finally:
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
