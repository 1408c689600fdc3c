"""What sample ids cost: bytes and seconds as a list of strings, and as the data sets hold them now."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from benchmarks.report import write_results
from cache_builder.format.ids import DecimalIds, IdBuffer, SampleIds
from cache_builder.format.writer import SampleTable

Result = TypeVar("Result")

DECIMALS = 10_000_000
PATHS = 1_000_000
LOOKED_UP = 100_000

NOTES = """
Each line is a process of its own; seconds are processor time, bytes are what its peak resident memory
grew by, per id, so that they hold whatever was needed on the way. "Table" checks every id (not empty,
UTF-8, unique) and makes the arrays of the store; for a list it is done as it was before 2026-11-25, with
a list of encoded ids and a set of them. "Same rows" matches the data set against the cache built from it,
as a trainer does at its start (a list needs the index for that); "looked up" finds 100,000 ids in random
order, which needs the index over all hashes.
"""


class Cost(NamedTuple):
    """What one form of ids cost."""

    made_s: float
    made_bytes: float
    table_s: float
    table_bytes: float
    same_s: float
    index_s: float | str
    looked_up_s: float


def decimal_list() -> list[str]:
    """As data sets in memory had them."""
    return [str(row) for row in range(DECIMALS)]


def decimal_ids() -> DecimalIds:
    """As they have them now."""
    return DecimalIds(DECIMALS)


def path_list() -> list[str]:
    """Paths like ImageNet's."""
    return [_path(row) for row in range(PATHS)]


def path_ids() -> SampleIds:
    """The same paths, added to a buffer one by one."""
    buffer = IdBuffer()
    for row in range(PATHS):
        buffer.append(_path(row).encode())
    return buffer.finish()


FORMS: dict[str, tuple[Callable[[], Sequence[str]], int]] = {
    "decimal, list of str": (decimal_list, DECIMALS),
    "decimal, DecimalIds": (decimal_ids, DECIMALS),
    "paths, list of str": (path_list, PATHS),
    "paths, SampleIds": (path_ids, PATHS),
}


def main() -> None:
    """Measure, print and keep the table."""
    rows = []
    for name, (_, count) in FORMS.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            cost = pool.submit(measure, name).result()
        rows.append([name, count, *cost])
    columns = ["ids", "count", "made, s", "made, bytes per id", "table, s", "table, bytes per id"]
    columns += ["same rows, s", "index, s", "looked up, s"]
    write_results("ids", "Sample ids: memory and seconds", columns, rows, NOTES)


def measure(name: str) -> Cost:
    """In a fresh process: make the ids, their table, and match them against it."""
    make, count = FORMS[name]
    before = _peak_bytes()
    made_s, ids = _timed(make)
    made = _peak_bytes()
    is_list = isinstance(ids, list)
    table_s, (id_bytes, offsets) = _timed(lambda: table_of_list(ids) if is_list else table_of_ids(ids))
    table = _peak_bytes()
    cached = SampleIds(id_bytes, offsets)
    same_s, _ = _timed(lambda: cached.rows_for(ids))
    # Matching a list has built the index already.
    index_s = "" if is_list else _timed(lambda: cached.rows_for([ids[0]]))[0]
    wanted = [ids[int(row)] for row in np.random.default_rng(0).integers(0, count, LOOKED_UP)]
    looked_up_s, _ = _timed(lambda: cached.rows_for(wanted))
    return Cost(
        made_s, (made - before) / count, table_s, (table - before) / count, same_s, index_s, looked_up_s
    )


def table_of_ids(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """As the builder does."""
    table = SampleTable.from_ids(ids, None)
    known = SampleIds.of(table.ids)
    return known.id_bytes, known.offsets


def table_of_list(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """As it did before: an object for each id, twice."""
    encoded = [sample_id.encode() for sample_id in ids]
    assert len(set(encoded)) == len(encoded)
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(item) for item in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def _path(row: int) -> str:
    return f"n{row % 1000:08d}/n{row % 1000:08d}_{row}.JPEG"


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _timed(step: Callable[[], Result]) -> tuple[float, Result]:
    begun = time.process_time()
    result = step()
    return time.process_time() - begun, result


if __name__ == "__main__":
    main()
