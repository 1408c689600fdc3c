"""Memory and cost per tile against the number of rows: of a build, and of the commands that look at a cache.

The data set, its ids and the teacher cost next to nothing, and pictures come without rendering, so that what
is measured is the builder: ids, plan, store, tiles, commits, seal. Every measure is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from zarr.storage import LocalStore

from benchmarks.report import write_results
from cache_builder import datasets
from cache_builder.build.begin import begun
from cache_builder.build.plan import Plan, make_plan
from cache_builder.build.rendering import RenderedBatch, RenderTask
from cache_builder.build.settings import BuildSettings
from cache_builder.build.tile_runner import TileRunner
from cache_builder.build.work import Listed, Tally
from cache_builder.console.progress import SILENT
from cache_builder.datasets.source import ImageSample, pixel_sample
from cache_builder.format.ids import DecimalIds
from cache_builder.format.layout import Tile, tile_arrays, tiles
from cache_builder.format.locks.lock import claimed
from cache_builder.format.reader import open_cache
from cache_builder.format.writer import CacheWriter

ROWS = (100_000, 1_000_000, 10_000_000)
WHOLE_ROWS = 1_000_000
_BUILT = 24
"""Tiles at either end that are built of a cache of more rows than these."""
CLASSES, SIDE, BATCH = 16, 8, 2048
FIRST_ID = 10**17
_ENDS = 12
"""Tiles at either end of a build whose processor time is compared."""
COLUMNS = ["what", *(f"{rows:,} rows" for rows in ROWS), "bytes a row"]
NOTES = f"""
One view, {CLASSES} classes, every logit stored, tiles of 4,096 rows: 25, 245 and 2,442 tiles. Builds of up
to {WHOLE_ROWS:,} rows are whole; of more, the first and the last {_BUILT} tiles are built, and those between
them get the records of the first one before the cache is sealed. Ids have 18 digits, and the data set makes
them when they are looked at. MB are what the peak
of resident memory is above that of the process once its modules are loaded and its teacher has answered;
"bytes a row" is what they grow by from {ROWS[0]:,} to {ROWS[-1]:,} rows. Processor time of a tile: the median
over the first and over the last {_ENDS} tiles. Ids looked at, keys listed: all of them while tiles are built,
by tile. A row by its id reads all ids and makes their index, as a server and a trainer do.

Before ids were streamed (2026-12-01, ten million ids of 28 bytes, a whole build): 675 MB to begin, 421 MB
while tiles were built, 452 MB to seal.
"""


class CountedIds(DecimalIds):
    """Counts how many ids are made one by one."""

    looked_at = 0

    def _id(self, row: int) -> str:
        self.looked_at += 1
        return super()._id(row)


class Blank:
    """N pictures of noise that are one of a few, with ids of 18 digits that take no memory."""

    reads_files, mirrors, class_names, labels = False, True, None, None
    side: int | None = SIDE

    def __init__(self, argument: str) -> None:
        self.spec = f"blank:{argument}"
        self.ids = CountedIds(int(argument), FIRST_ID)
        pictures = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
        self.samples = [pixel_sample(picture) for picture in pictures]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, row: int) -> ImageSample:
        """Eight by eight pixels."""
        return self.samples[row % len(self.samples)]


def linear() -> nn.Module:
    """As cheap as a teacher can be."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))


def unrendered(plan: Plan, batches: Iterable[list[RenderTask]]) -> Iterator[RenderedBatch]:
    """The pictures as they are, for the views that were asked for."""
    source = plan.source
    assert isinstance(source, Blank)
    pictures = torch.stack([sample.value for sample in source.samples])
    for batch in batches:
        rows = [task.row for task in batch]
        images = pictures[np.array(rows) % len(pictures), None]
        yield RenderedBatch(rows, [row + 1 for row in rows], images, [None] * len(rows), {})


@dataclass
class TimedTiles(Listed):
    """All tiles, with the processor time at which each was committed."""

    stamps: list[float] = field(default_factory=list)

    def __init__(self, everything: list[Tile], tally: Tally) -> None:
        super().__init__(everything, tally)
        self.stamps = [time.process_time()]

    def committed(self, tile: Tile) -> None:
        """Note when."""
        super().committed(tile)
        self.stamps.append(time.process_time())

    def tile_ms(self, which: slice) -> float:
        """Processor time of a tile, the median of some."""
        return 1e3 * median(np.diff(self.stamps)[which].tolist())


class Listings:
    """Counts the keys that listings of local stores give."""

    def __init__(self) -> None:
        self.keys = 0
        listed = LocalStore.list_prefix

        async def counted(store: LocalStore, prefix: str) -> Any:
            async for key in listed(store, prefix):
                self.keys += 1
                yield key

        LocalStore.list_prefix = counted  # type: ignore[method-assign]


class Peak:
    """The peak of resident memory since some moment, above what was resident at first."""

    def __init__(self) -> None:
        self._first = _status("VmRSS")
        self.reset()

    def reset(self) -> None:
        """Count from now on."""
        Path("/proc/self/clear_refs").write_text("5")

    def mb(self) -> float:
        """Megabytes."""
        return (_status("VmHWM") - self._first) / 1e6


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def build(path: str, rows: int) -> dict[str, float]:
    """The flow of ``cache_builder.build.pipeline``, with its phases apart and pictures that need no work."""
    datasets.DATASETS["blank"] = Blank
    torch.manual_seed(0)
    settings = BuildSettings(
        teacher="benchmarks.rows_memory:linear", weights="random", data=f"blank:{rows}", out=path,
        views=1, recipe="plain", batch_size=BATCH, workers=0, input_size=SIDE, exact=True,
    )  # fmt: skip
    linear()(torch.zeros(1, 3, SIDE, SIDE))
    peak, found, began = Peak(), {}, time.perf_counter()
    plan = make_plan(settings)
    with claimed(path, None) as hold:
        store = begun(plan, SILENT, hold, None)
        writer = store.writer(path, hold.check)
        found["begin, peak MB"] = peak.mb()
        everything = list(tiles(store.manifest))
        built = everything if rows <= WHOLE_ROWS else [*everything[:_BUILT], *everything[-_BUILT:]]
        work = TimedTiles(built, Tally(path, everything, is_live=False, is_new=True))
        peak.reset()
        seen, ids = Listings(), plan.source.ids
        assert isinstance(ids, CountedIds)
        before = ids.looked_at
        TileRunner(plan, store.manifest, writer, SILENT, unrendered).run(work)
        found["tiles, peak MB"] = peak.mb()
        found["processor ms of a tile at the start"] = work.tile_ms(slice(1, 1 + _ENDS))
        found["processor ms of a tile at the end"] = work.tile_ms(slice(-_ENDS, None))
        found["ids looked at, a tile"] = (ids.looked_at - before) / len(built)
        found["keys listed, a tile"] = seen.keys / len(built)
        fill(path, writer, everything[len(built) - _BUILT : -_BUILT])
        peak.reset()
        writer.finish()
        found["seal, peak MB"] = peak.mb()
    return found | {"seconds": time.perf_counter() - began}


def fill(path: str, writer: CacheWriter, between: list[Tile]) -> None:
    """Write tiles with the records of the first one, which costs little."""
    if not between:
        return
    cache = open_cache(path, allow_partial=True)
    first = cache.tiles[0]
    keys = {spec.path: spec.shard_key(first) for spec in tile_arrays(cache.manifest, first)}
    objects = {name: (Path(path) / key).read_bytes() for name, key in keys.items()}
    commit = cache.commits[first.key]
    for tile in between:
        writer.adopt_tile(tile, commit, objects)


def inspect(path: str, _: int) -> dict[str, float]:
    """As ``kdcache inspect`` looks."""
    from cache_builder.look.inspect import describe

    return _timed("inspect", lambda: describe(path, None, 0))


def inspect_sample(path: str, rows: int) -> dict[str, float]:
    """As ``kdcache inspect --sample`` looks."""
    from cache_builder.look.inspect import describe

    return _timed("inspect --sample", lambda: describe(path, str(FIRST_ID + rows // 2), 0))


def verify(path: str, _: int) -> dict[str, float]:
    """As ``kdcache verify`` looks."""
    from cache_builder.verify.run import verify as verified
    from cache_builder.verify.settings import VerifySettings

    def whole() -> None:
        assert verified(VerifySettings(cache=path), SILENT).exit_code == 0

    return _timed("verify", whole)


def one_row(path: str, rows: int) -> dict[str, float]:
    """A row of a sealed cache by its number."""
    return _timed("open, one row by number", lambda: open_cache(path).gather(0, [rows // 2]))


def one_id(path: str, rows: int) -> dict[str, float]:
    """A row of a sealed cache by its id."""

    def found() -> None:
        cache = open_cache(path)
        cache.gather(0, cache.rows_for([str(FIRST_ID + rows // 2)]))

    return _timed("open, one row by id", found)


def _timed(what: str, look: Any) -> dict[str, float]:
    peak, began = Peak(), time.process_time()
    look()
    return {f"{what}, peak MB": peak.mb(), f"{what}, processor s": time.process_time() - began}


MEASURES = {
    measure.__name__: measure for measure in (build, inspect, inspect_sample, verify, one_row, one_id)
}


def main() -> None:
    """Every size, then the table."""
    found: dict[str, list[float]] = {}
    for rows in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            for name in MEASURES:
                for what, value in in_a_process(name, f"{folder}/rows.zarr", rows).items():
                    found.setdefault(what, []).append(value)
                    print(f"{rows:,} rows, {what}: {value:.4g}", flush=True)
    report(found)


def report(found: dict[str, list[float]]) -> None:
    """Write the table of figures by size."""
    span = ROWS[-1] - ROWS[0]
    lines: list[list[object]] = [
        [what, *values, (values[-1] - values[0]) * 1e6 / span if what.endswith("MB") else ""]
        for what, values in found.items()
        if what != "seconds"
    ]
    write_results(
        "rows_memory", "Memory and cost per tile against the rows of a cache", COLUMNS, lines, NOTES
    )


def in_a_process(name: str, path: str, rows: int) -> dict[str, float]:
    """One of the measures, by its name."""
    command = [sys.executable, "-m", "benchmarks.rows_memory", name, path, str(rows)]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(MEASURES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
    else:
        main()
