"""Page loads from a distant store: as it was, with the next blocks fetched ahead, and from the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from benchmarks.caches import write_large_cache
from benchmarks.report import alternate, write_results
from benchmarks.store_requests import LATENCY_S, VIEWS, at_once, by_block, late_server, seconds, whole
from cache_builder.format import near
from cache_builder.format.block_cache.keeper import block_keeper
from cache_builder.format.block_cache.settings import FOLDER_VARIABLE
from cache_builder.format.reader import Cache, open_cache

ROWS = 400_000
ROUNDS = 5
KINDS = ("before", "ahead", "cold", "warm")
REMOTE = "s3://late/large.zarr"

NOTES = f"""
Rates over those from the disk, in one run: a view of {ROWS:,} records of seven arrays, from a server on
loopback that answers every request {1e3 * LATENCY_S:.0f} ms late; the fastest of {ROUNDS} rounds each, in
turn, as the machine had other work. "Block by block": one page load after the other; "eight at once": in
eight threads, as a server loads pages; "whole view": as a trainer reads. "Before": nothing is fetched ahead
of a reader who goes from block to block, nothing is kept. "Ahead": the next blocks are, nothing is kept.
"Cold": the block cache is empty, and filled meanwhile, once. "Warm": another reader filled it.
"""


def main() -> None:
    """Measure, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        write_large_cache(Path(folder, "large.zarr"), ROWS, VIEWS)
        with late_server(Path(folder)), mock.patch.dict(os.environ, {FOLDER_VARIABLE: f"{folder}/blocks"}):
            rows = list(rates(Path(folder)))
    columns = ["of the local rate", *KINDS]
    write_results("block_cache", "Page loads from a distant store", columns, rows, NOTES)


def rates(folder: Path) -> Iterator[list[object]]:
    """Rates over those from the disk, by how a view is read."""
    for name, read in (("block by block", by_block), ("eight at once", at_once), ("whole view", whole)):
        taken = alternate(candidates(folder, read), ROUNDS)
        best = {kind: min(times) for kind, times in taken.items()}
        yield [name, *(round(best["local"] / best[kind], 3) for kind in KINDS)]


def candidates(folder: Path, read: Callable[[Cache], None]) -> dict[str, Callable[[], float]]:
    """What is timed, by name; each begins with a cache that was just opened."""

    def before() -> float:
        with (
            mock.patch.dict(os.environ, {FOLDER_VARIABLE: "off"}),
            mock.patch.object(near, "MOST_AHEAD", 0),
        ):
            return seconds(read, opened(REMOTE))

    def ahead() -> float:
        with mock.patch.dict(os.environ, {FOLDER_VARIABLE: "off"}):
            return seconds(read, opened(REMOTE))

    def cold() -> float:
        shutil.rmtree(folder / "blocks", ignore_errors=True)
        return seconds(read, opened(REMOTE))

    def warm() -> float:
        with mock.patch.dict(os.environ, {FOLDER_VARIABLE: str(folder / "filled")}):
            opened(REMOTE).read_page(1)
            keeper = block_keeper()
            assert keeper is not None
            keeper.settle()
            return seconds(read, opened(REMOTE))

    return {
        "local": lambda: seconds(read, opened(str(folder / "large.zarr"))),
        "before": before,
        "ahead": ahead,
        "cold": cold,
        "warm": warm,
    }


def opened(location: str) -> Cache:
    """A cache with its codec read, which every reader does once."""
    cache = open_cache(location)
    _ = cache.codec
    return cache


if __name__ == "__main__":
    main()
