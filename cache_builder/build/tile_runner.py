"""Tile by tile: render, record, check, write; a tile is written while the next one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cache_builder.build.batches import tile_batches
from cache_builder.build.plan import Plan
from cache_builder.build.recorder import BatchRecorder
from cache_builder.build.rendering import RenderedBatch, RenderTask
from cache_builder.build.running import Renders, rendered
from cache_builder.build.same_images import SameImages
from cache_builder.build.work import Work
from cache_builder.console.progress import BuildStats, Progress
from cache_builder.datasets.orders import OrderTally
from cache_builder.format.layout import Tile
from cache_builder.format.manifest import Manifest
from cache_builder.format.statistics import TileStatistics
from cache_builder.format.writer import CacheWriter


class TileRunner:
    """Builds the tiles of a work: renders, records, writes and commits; one writer thread behind the teacher.

    It needs a plan and a store that was begun, and nothing of the other processes that build it: whoever
    hands out work in another way gives :meth:`run` the tiles it should do now, as often as it likes.
    ``render``: who renders the views, here or elsewhere.
    """

    def __init__(
        self,
        plan: Plan,
        manifest: Manifest,
        writer: CacheWriter,
        progress: Progress,
        render: Renders = rendered,
    ) -> None:
        self._plan = plan
        self._render = render
        self._writer = writer
        self._progress = progress
        self._stats = BuildStats()
        self._recorder = BatchRecorder(plan, manifest, writer.codec, self._stats)
        self._same_images = SameImages(plan, manifest, writer)
        self._pending: Future[None] | None = None

    @property
    def order(self) -> OrderTally:
        """Whether another order of the classes suits the teacher better."""
        return self._recorder.order

    def run(self, work: Work) -> BuildStats:
        """Build and commit every tile of a work; gives the counters of all that this runner did."""
        self._progress.start("building", work.total, work.elsewhere())
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tile-writer") as pool:
            while True:
                self._run_taken(work, pool)
                if not work.wait():
                    break
        self._told(work, last=True)
        return self._stats

    def _run_taken(self, work: Work, pool: ThreadPoolExecutor) -> None:
        """Build what can be taken now. Loader processes are ahead of the teacher, and so is what is taken."""
        first = work.take()
        if first is None:
            return
        taken = deque([first])

        def tasks() -> Iterator[list[RenderTask]]:
            yield from tile_batches(self._plan, first)
            while (tile := work.take()) is not None:
                taken.append(tile)
                yield from tile_batches(self._plan, tile)

        batches = self._render(self._plan, tasks())
        for batch in batches:
            finished = self._run_tile(taken.popleft(), chain([batch], batches), work)
            self._written()
            self._same_images.check_tile(finished.tile, finished.digests)
            self._pending = pool.submit(self._write, finished, work)
        self._written()

    def _told(self, work: Work, last: bool = False) -> None:
        self._progress.update(work.elsewhere() + self._stats.done, self._stats.describe(), last=last)

    def _written(self) -> None:
        """Wait for the tile that is being written; raises what its writer raised."""
        if self._pending is not None:
            self._pending.result()

    def _run_tile(self, tile: Tile, batches: Iterator[RenderedBatch], work: Work) -> FinishedTile:
        height, width = len(tile.views), len(tile.rows)
        records = np.empty((height, width, self._writer.codec.layout.record_bytes), np.uint8)
        digests = np.zeros(width, np.uint64)
        shared = self._writer.shared_fields(tile)
        invalid: list[int] = []
        filled = 0
        while filled < width:
            if self._pending is not None and self._pending.done():
                self._pending.result()  # a full disk is told now, not after hours of computing
            batch = next(batches)
            self._same_images.check_batch(batch)
            places = np.array(batch.rows) - tile.row_start
            of_rows = shared and {name: column[places] for name, column in shared.items()}
            records[:, places] = self._recorder.record(batch, tile, of_rows)
            digests[places] = batch.digests
            invalid += [row for row, error in zip(batch.rows, batch.errors, strict=True) if error]
            filled += len(batch.rows)
            self._stats.done += len(batch.rows) * height
            work.advanced()
            self._told(work)
        return FinishedTile(tile, records, digests, sorted(invalid), self._recorder.statistics())

    def _write(self, finished: FinishedTile, work: Work) -> None:
        if not work.is_ours(finished.tile):
            return
        written = self._writer.write_records(
            finished.tile, finished.records, finished.digests, finished.invalid, finished.statistics
        )
        self._stats.bytes_written += written
        if written:  # nothing where somebody else had committed it
            self._stats.records_committed += finished.tile.count
        work.committed(finished.tile)


@dataclass(frozen=True)
class FinishedTile:
    """A tile in memory, ready to be written."""

    tile: Tile
    records: NDArray[np.uint8]
    """uint8 [views, rows, record_bytes]."""
    digests: NDArray[np.uint64]
    invalid: list[int]
    statistics: TileStatistics
