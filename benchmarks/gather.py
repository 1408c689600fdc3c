"""What gathering the records of a request takes alone: the floor under a server's time for random rows.

    python -m benchmarks gather

NumPy's ``take`` from a mapped file, as a page is one, of random rows, and the digest of what it gives.
"""

from __future__ import annotations

import itertools
import mmap
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import xxhash

from benchmarks.report import write_results

RECORD_BYTES, REQUESTS, ROUNDS = 77, 400, 5
SIZES = tuple(itertools.product((50_000, 1_281_167), (256, 4096)))
"""(rows of a view, rows of a request), as `server_rivals` asks for."""

NOTES = f"""
Processor time of a request, median of {ROUNDS} rounds of {REQUESTS} requests, each for other random rows of
{RECORD_BYTES} bytes in a file that is mapped and in memory. "Digest": XXH3-64 of the gathered bytes. A server
that gathers takes at least both; the bare application of `server_rivals` sends bytes that lie ready.
"""


def main() -> None:
    """Measure, print and keep the table."""
    columns = ["rows in the view", "rows per request", "gather us", "digest us"]
    write_results("gather", "Gathering the records of a request", columns, list(measured()), NOTES)


def measured() -> Iterator[list[object]]:
    """A line for each size."""
    random = np.random.default_rng(0)
    for rows, wanted in SIZES:
        with tempfile.TemporaryFile() as file:
            file.truncate(rows * RECORD_BYTES)
            mapped = mmap.mmap(file.fileno(), rows * RECORD_BYTES)
            records = np.frombuffer(mapped, np.uint8).reshape(rows, RECORD_BYTES)
            records[:] = random.integers(0, 255, records.shape, np.uint8)
            requests = random.integers(0, rows, (REQUESTS, wanted), np.uint32)
            gathered = records.take(requests[0], axis=0)
            gather = microseconds(lambda one, of=records: of.take(one, axis=0), requests)
            digest = microseconds(lambda _, of=gathered: xxhash.xxh3_64_digest(of.data), requests)
            yield [rows, wanted, gather, digest]


def microseconds(call: Callable[[np.ndarray], object], requests: np.ndarray) -> float:
    """Processor time of one call."""
    found = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        for one in requests:
            call(one)
        found.append(1e6 * (time.process_time() - began) / len(requests))
    return statistics.median(found[1:])  # the first warms up


if __name__ == "__main__":
    main()
