"""How fast a view becomes a page: rows per second from the store to memory that requests gather from."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.caches import IMAGENET_ROWS, write_large_cache
from benchmarks.report import alternate, write_results
from logit_server.page_folder import PageFolder
from logit_server.served_caches import ServedCache
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from logit_server.storage import read_block

ROUNDS = 11

NOTES = f"""
Medians of {ROUNDS} rounds, taken in turn, of one view of {IMAGENET_ROWS:,} records of 77 bytes.
"Shards as they are" reads the files of the view without decoding them, from the operating system's cache: the
floor. A page is decoded block by block and written to the page folder once per server run; every further
worker only maps it. A server decodes two blocks at a time, here it is one.
"""


def main() -> None:
    """Measure, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.zarr")
        write_large_cache(path)
        (served,) = open_catalog(Settings(caches=(str(path),)))
        seconds = alternate(steps(served, Path(folder, "pages")), ROUNDS)
    medians = {name: statistics.median(measured) for name, measured in seconds.items()}
    rows = [[name, median, served.samples / median] for name, median in medians.items()]
    write_results("pages", "From a view in the store to a page", ["step", "seconds", "rows/s"], rows, NOTES)


def steps(served: ServedCache, folder: Path) -> dict[str, Callable[[], float]]:
    """What is timed, by name."""
    shards = sorted(file for file in Path(served.cache.location, "records").rglob("*") if file.is_file())
    pages = PageFolder(folder, 2**40)

    blocks = range(len(served.blocks))

    def load_and_map() -> None:
        pages.path(served.cache_id, 0).unlink(missing_ok=True)
        page = pages.open(served, 0)
        for block in blocks:
            pages.load(served, 0, page, block)

    return {
        "shards as they are": lambda: timed(lambda: [file.read_bytes() for file in shards]),
        "decoded (Cache.read_page)": lambda: timed(lambda: served.cache.read_page(0)),
        "decoded, block by block": lambda: timed(lambda: [read_block(served, 0, b) for b in blocks]),
        "decoded, written and mapped": lambda: timed(load_and_map),
        "mapped by another worker": lambda: timed(lambda: pages.open(served, 0)),
    }


def timed(step: Callable[[], object]) -> float:
    """Seconds that a step takes."""
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
