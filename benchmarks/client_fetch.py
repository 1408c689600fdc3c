"""What a fetch of 256 records costs the client, by how it reads answers: processor time.

python -m benchmarks client_fetch
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import httpx2
import numpy as np

from benchmarks.caches import write_large_cache
from benchmarks.report import alternate, write_results
from cache_builder.client.connection import Connection
from cache_builder.client.remote_cache import RemoteCache
from tests.logit_server.processes import started

ROWS, FETCHED = 100_000, 256
FETCHES, ROUNDS = 300, 7

NOTES = f"""
{FETCHED} random records of 77 bytes from a server on loopback in a process of its own; processor time of the
client alone, the median of {ROUNDS} rounds of {FETCHES} fetches, in turn. "Bounded": as the client reads an
answer since 2026-12, piece by piece, with a limit on its bytes and on its time. "Unbounded": as httpx2 reads
it by itself, and as the client did before.
"""


class Unbounded(Connection):
    """Takes an answer as long as it is, whenever it ends."""

    def _whole(self, coming: httpx2.Response, most_bytes: int) -> httpx2.Response:
        del most_bytes
        coming.read()
        return coming


def main() -> None:
    """Measure, print and keep the table."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.zarr")
        name = write_large_cache(path, ROWS).name
        with started(path) as server:
            url = f"{server.url}/v1/caches/{name}"
            caches = {"bounded": RemoteCache(Connection(url)), "unbounded": RemoteCache(Unbounded(url))}
            wanted = random.integers(0, ROWS, (FETCHES, FETCHED))
            answers = {
                which: np.stack([cache.records(0, rows) for rows in wanted])
                for which, cache in caches.items()
            }
            np.testing.assert_array_equal(answers["bounded"], answers["unbounded"])
            fetches = {which: partial(_fetch_s, cache, wanted) for which, cache in caches.items()}
            seconds = alternate(fetches, ROUNDS)
            for cache in caches.values():
                cache.close()
    rows = [[which, 1e6 * median(took) / FETCHES] for which, took in seconds.items()]
    write_results(
        "client_fetch", "A fetch by the client", ["answers are read", "CPU us a fetch"], rows, NOTES
    )


def _fetch_s(cache: RemoteCache, wanted: np.ndarray) -> float:
    """Processor seconds to fetch the records of so many requests."""
    began = time.process_time()
    for rows in wanted:
        cache.records(0, rows)
    return time.process_time() - began


if __name__ == "__main__":
    main()
