"""The build: render -> teacher forward -> encode on the device -> tile buffer -> writer thread -> commit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.build.begin import begin, look_at_teacher
from cache_builder.build.forward import CompilerError
from cache_builder.build.launch import ALONE, Launch, await_others
from cache_builder.build.mixed_pairs import ImagesRead
from cache_builder.build.output import check_output
from cache_builder.build.parts import begun_like, of_part, part_tiles
from cache_builder.build.plan import Plan, as_there, check_settings, make_plan, refuse_other
from cache_builder.build.rendering import (
    RenderedBatch,
    RenderTask,
    chunks,
    in_pairs,
)
from cache_builder.build.repair import withdraw_damaged
from cache_builder.build.running import check_finite, named, rendered, teacher_failures
from cache_builder.build.settings import BuildSettings
from cache_builder.build.statistics import INVALID, NO_LABEL, StatisticsMeter
from cache_builder.console.memory import memory_failures
from cache_builder.console.progress import SILENT, BuildStats, Progress
from cache_builder.datasets import ImageSource, left_out_of
from cache_builder.datasets.orders import BetterOrder, OrderTally
from cache_builder.format.class_names import NO_NAMES, ClassNames
from cache_builder.format.codecs import Fields
from cache_builder.format.commits import read_commit_bytes
from cache_builder.format.creation import check_unclaimed
from cache_builder.format.errors import ConfigError, DataError, KDCacheError
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.locations import is_remote
from cache_builder.format.locks.lock import Hold, JoinedHold, claimed
from cache_builder.format.manifest import Manifest, differing_names
from cache_builder.format.reader import Cache, open_cache, read_manifest
from cache_builder.format.same_samples import differing_array
from cache_builder.format.statistics import TeacherStatistics, TileStatistics
from cache_builder.format.store import open_store
from cache_builder.format.writer import CacheWriter
from cache_builder.tensors.encode import RecordEncoder

_NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class BuildResult:
    """A finished cache."""

    manifest: Manifest
    stats: BuildStats
    """Of this run."""
    was_finished: bool
    """The cache was complete before: nothing had to be done."""
    statistics: TeacherStatistics | None
    """What the teacher did on all views of the cache, also those of earlier runs."""
    names: ClassNames = NO_NAMES
    """What the classes are called."""
    order: BetterOrder | None = None
    """Another order of the classes under which the teacher is far better, on the views of this run."""


def build(
    settings: BuildSettings,
    progress: Progress = SILENT,
    launch: Launch = ALONE,
    source: ImageSource | None = None,
) -> BuildResult:
    """Build or continue a cache. Committed tiles survive whatever happens.

    ``progress``: where it says how far it is; a ``BuildProgress`` of ``cache_builder.console.progress`` shows
    it on a console. ``launch``: the processes that build it together. ``source``: the data set, where it
    is open already. Raises :class:`ConfigError` when the output holds a cache of other settings, or
    something else, and while another process builds it.
    """
    if settings.repair and launch.world > 1:
        raise ConfigError("--repair is for one process: run it without torchrun, then build as before")
    device = launch.device(settings.device, torch.cuda.device_count())
    settings = settings.model_copy(update={"device": device})
    if launch.rank == 0:
        check_output(settings.out)
    with memory_failures(settings.batch_size):
        there = as_there(settings)
        # A cache that is there may have had its pictures decoded by an older rule.
        same = there.decoding == settings.decoding
        plan = of_part(make_plan(there, source=source if same else None))
        if launch.rank:
            return _join(plan, progress, launch)
        # Before the lock: a finished cache may lie on a disk that cannot be written to. Where it is of other
        # settings, somebody may be building it now, which is for the lock to say.
        finished = None if settings.repair else _finished_by_these_settings(plan)
        if finished is not None:
            return finished
        with claimed(settings.out, launch.name) as hold:
            if settings.repair:
                _repair(plan, progress, hold)
            return _finished(plan) or _build(plan, progress, hold, launch)


def _build(plan: Plan, progress: Progress, hold: Hold, launch: Launch) -> BuildResult:
    stored = _resumed(plan)
    if plan.settings.compile:
        _compile(plan, progress)
    masks = stored is None and look_at_teacher(plan, progress)
    if left_out := left_out_of(plan.source):
        progress.say(f"{plan.settings.data} leaves out {left_out}")
    manifest = stored or begun_like(plan) or begin(plan, progress, hold, masks)
    writer = CacheWriter(plan.settings.out, manifest, hold.check)
    writer.sweep()
    hold.ready()
    began = time.monotonic()
    runner = TileRunner(plan, manifest, writer, progress, launch)
    stats = runner.run()
    if launch.world > 1:
        part = part_tiles(manifest, plan.settings.rows)
        await_others(plan.settings.out, part, writer, progress.say, time.monotonic() - began)
    if all(map(writer.is_committed, tiles(manifest))):
        manifest = writer.finish()  # a part stays open
    return replace(_result(plan, manifest, stats, was_finished=False), order=runner.order.better())


def _repair(plan: Plan, progress: Progress, hold: Hold) -> None:
    stored = read_manifest(plan.settings.out)
    if stored is not None:
        check_settings(plan, stored)
        damaged = withdraw_damaged(plan.settings.out, hold.check, progress)
        named = "; ".join(map(str, damaged[:_NAMED_IN_ERRORS]))
        progress.say(
            f"{len(damaged)} damaged tile(s) will be written anew: {named}" if damaged else "no damaged tile"
        )


def _join(plan: Plan, progress: Progress, launch: Launch) -> BuildResult:
    """The share of another process than rank 0, once that has created the store."""
    assert launch.name is not None
    hold = JoinedHold(plan.settings.out, launch.name)
    hold.wait(lambda: _finished_by_these_settings(plan) is not None)
    finished = _finished(plan)
    if finished is not None:
        return finished
    if plan.settings.compile:
        _compile(plan, progress)
    manifest = _resumed(plan)
    if manifest is None:
        raise KDCacheError(
            f"{plan.settings.out}: rank 0 said that it is begun, and there is none: does it lie on a "
            "disk that all ranks share?"
        )
    writer = CacheWriter(plan.settings.out, manifest, hold.check)
    stats = TileRunner(plan, manifest, writer, progress, launch).run()
    return BuildResult(manifest, stats, was_finished=False, statistics=None)


def _finished_by_these_settings(plan: Plan) -> BuildResult | None:
    with suppress(ConfigError):
        return _finished(plan)
    return None


def _finished(plan: Plan) -> BuildResult | None:
    """What there is, where nothing has to be done."""
    stored = _resumed(plan)
    if stored is None:
        return None
    part = part_tiles(stored, plan.settings.rows)
    is_part = len(part) < len(list(tiles(stored)))
    # A tile whose commit was deleted because its shards were damaged is built again, also of a sealed cache.
    commits = read_commit_bytes(open_store(plan.settings.out, read_only=True), part)
    if (stored.cache_id is None and not is_part) or len(commits) < len(part):
        return None
    return _result(plan, stored, BuildStats(), was_finished=True)


def _result(plan: Plan, manifest: Manifest, stats: BuildStats, was_finished: bool) -> BuildResult:
    cache = open_cache(plan.settings.out, allow_partial=plan.settings.rows is not None)
    return BuildResult(manifest, stats, was_finished, cache.statistics(), cache.names)


def _compile(plan: Plan, progress: Progress) -> None:
    """Have the teacher translated; where that cannot be done, say so and go on without."""
    progress.start("compiling", 1, unit="teacher")
    began = time.monotonic()
    try:
        plan.forward.compile(plan.settings.batch_size, plan.manifest.input.size)
    except CompilerError as error:
        progress.say(
            f"--compile: the teacher could not be compiled ({error}); it runs without, only slower. Is a C++ "
            "compiler such as g++ installed?"
        )
    progress.update(1, f"took {time.monotonic() - began:.0f} s", last=True)


def _resumed(plan: Plan) -> Manifest | None:
    """The manifest of a cache of the same settings that is there already."""
    out = plan.settings.out
    stored = read_manifest(out)
    if stored is None:
        if is_remote(out):
            check_unclaimed(out, plan.manifest)
        return None
    check_settings(plan, stored)
    cache = open_cache(out, allow_partial=True)
    refuse_other(plan, stored, differing_names(cache.class_names, plan.table.names.teacher))
    if differing_array(cache, plan.table) is not None:
        raise ConfigError(
            f"{out} was begun over other sample ids or labels than {plan.settings.data} has now: "
            "restore the data set, or use another --out"
        )
    return cache.manifest


class TileRunner:
    """Runs the uncommitted tiles of a cache, one writer thread behind the teacher."""

    def __init__(
        self,
        plan: Plan,
        manifest: Manifest,
        writer: CacheWriter,
        progress: Progress,
        launch: Launch = ALONE,
    ) -> None:
        self._plan = plan
        self._launch = launch
        self._manifest = manifest
        self._writer = writer
        self._progress = progress
        self._encoder = RecordEncoder(writer.codec).to(plan.forward.device)
        self._meter = StatisticsMeter(manifest.classes, plan.forward.device)
        self._stats = BuildStats()
        self.order = OrderTally(plan.data_names, manifest.classes, manifest.views.count)
        """Whether another order of the classes suits the teacher better."""
        self._pending: Future[None] | None = None
        self._unreadable: set[int] = set()

    def run(self) -> BuildStats:
        """Run and commit every missing tile of this process."""
        everything = self._launch.share(part_tiles(self._manifest, self._plan.settings.rows))
        todo = [tile for tile in everything if not self._writer.is_committed(tile)]
        total = sum(tile.count for tile in everything)
        before = total - sum(tile.count for tile in todo)
        self._progress.start("building", total, before)
        batches = rendered(self._plan, chain.from_iterable(self.batches(self._plan, tile) for tile in todo))
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tile-writer") as pool:
            for tile in todo:
                finished = self._run_tile(tile, batches, before)
                self._written()
                self._check_unchanged(finished)
                self._pending = pool.submit(self._write, finished)
            self._written()
        self._progress.update(before + self._stats.done, self._stats.describe(), last=True)
        return self._stats

    def _written(self) -> None:
        """Wait for the tile that is being written; raises what its writer raised."""
        if self._pending is not None:
            self._pending.result()

    @staticmethod
    def batches(plan: Plan, tile: Tile) -> Iterator[list[RenderTask]]:
        """Batches never cross tiles, so a resumed build computes exactly what an uninterrupted one does."""
        per_batch = max(1, plan.settings.batch_size // len(tile.views))
        rows = in_pairs(plan.replay, tile)
        return chunks([RenderTask(row, tile.view_start, tile.view_stop) for row in rows], per_batch)

    def _run_tile(self, tile: Tile, batches: Iterator[RenderedBatch], before: int) -> FinishedTile:
        height, width = len(tile.views), len(tile.rows)
        records = np.empty((height, width, self._encoder.layout.record_bytes), np.uint8)
        digests = np.zeros(width, np.uint64)
        invalid: list[int] = []
        filled = 0
        while filled < width:
            if self._pending is not None and self._pending.done():
                self._pending.result()  # a full disk is told now, not after hours of computing
            batch = next(batches)
            self._check_partners(batch)
            places = np.array(batch.rows) - tile.row_start
            with teacher_failures(self._plan, batch.rows):
                encoded = self._encode(batch, tile).cpu().numpy()
            block = np.ascontiguousarray(encoded.reshape(len(batch.rows), height, -1).swapaxes(0, 1))
            self._mark_invalid(block, batch, tile, invalid)
            records[:, places] = block
            digests[places] = batch.digests
            filled += len(batch.rows)
            self._stats.done += len(batch.rows) * height
            self._progress.update(before + self._stats.done, self._stats.describe())
        return FinishedTile(tile, records, digests, sorted(invalid), self._meter.take())

    def _encode(self, batch: RenderedBatch, tile: Tile) -> Tensor:
        """Records uint8 [rows * views, record_bytes] on the device; the live logits are counted there too."""
        labels = torch.from_numpy(self._labels(batch, tile)).long()
        labels[:, [error is not None for error in batch.errors]] = INVALID
        size = self._plan.settings.batch_size
        pieces = torch.split(batch.images.flatten(0, 1), size)
        labels_of = torch.split(labels.T.flatten(), size)
        encoded = []
        for piece, piece_labels in zip(pieces, labels_of, strict=True):
            logits = self._plan.forward.logits(piece)
            self._meter.add(logits, piece_labels)
            encoded.append(self._encoder(logits))
        return torch.cat(encoded)

    def _labels(self, batch: RenderedBatch, tile: Tile) -> NDArray[np.int32]:
        """Labels [views, rows], -1 where none is known and where two samples are mixed."""
        labels = np.tile(self._plan.table.labels[batch.rows], (len(tile.views), 1))
        labels[[self._plan.replay.recipe.mixes(view) for view in tile.views]] = NO_LABEL
        return labels

    def _mark_invalid(
        self, records: NDArray[np.uint8], batch: RenderedBatch, tile: Tile, invalid: list[int]
    ) -> None:
        """Check what came back: bad logits stop the build, unreadable rows become NaN records."""
        unreadable = [index for index, error in enumerate(batch.errors) if error]
        codec = self._writer.codec
        flat = codec.unpack(records.reshape(-1, records.shape[-1]))
        finite: NDArray[np.bool_] = np.all(codec.usable(flat).reshape(records.shape[:2]), axis=0)
        finite[unreadable] = True
        check_finite(finite, batch.rows, self._plan)
        for index in unreadable:
            records[:, index] = codec.pack(codec.invalid(len(records)))
            invalid.append(batch.rows[index])
        self._unreadable.update(batch.rows[index] for index in unreadable)
        self._stats.invalid = len(self._unreadable)
        self._count(flat, batch, tile)

    def _count(self, flat: Fields, batch: RenderedBatch, tile: Tile) -> None:
        labels = self._labels(batch, tile)
        best = self._writer.codec.best(flat).reshape(labels.shape)
        known = (labels >= 0) & np.array([error is None for error in batch.errors])
        self._stats.top1_hits += int((best == labels)[known].sum())
        self._stats.labelled += int(known.sum())
        self.order.add(labels[known], best[known])
        self._stats.clipped += self._writer.codec.saturated(flat)

    def _check_unchanged(self, finished: FinishedTile) -> None:
        """Samples are read once for each view group: they must still be what they were for the first."""
        if finished.tile.group == 0:
            return
        before, now = self._first_group.read_digests(finished.tile.rows), finished.digests
        changed = np.flatnonzero((before != now) & (before != 0) & (now != 0))
        if changed.size:
            rows = [finished.tile.row_start + int(index) for index in changed]
            raise DataError(
                f"{len(rows)} sample(s) of {self._plan.settings.data} changed since their first views were "
                f"recorded: {named(rows, self._plan)}; restore them, or build anew with another --out"
            )

    def _check_partners(self, batch: RenderedBatch) -> None:
        """Samples that are mixed are read as partners too: it must be the same image each time."""
        if self._read is None:
            return
        own = dict(zip(batch.rows, batch.digests, strict=True))
        changed = self._read.note(own | batch.partners)
        if changed:
            raise DataError(
                f"{len(changed)} sample(s) of {self._plan.settings.data} changed, or could be read at one "
                f"time only, while others were mixed with them: {named(changed, self._plan)}; see that "
                "nothing writes to the data set, and build anew with another --out"
            )

    @cached_property
    def _read(self) -> ImagesRead | None:
        """What was read so far, also by the runs before this one; None where nothing is mixed."""
        if not self._plan.replay.mixes:
            return None
        read, cache = ImagesRead(self._manifest.data.samples), None
        for tile in tiles(self._manifest):
            if tile.group == 0 and self._writer.is_committed(tile):
                cache = cache or open_cache(self._writer.location, allow_partial=True)
                read.note_all(np.array(tile.rows), cache.read_digests(tile.rows))
        return read

    @cached_property
    def _first_group(self) -> Cache:
        # Tiles run and commit in order, so that the first view group is there before the second begins.
        return open_cache(self._writer.location, allow_partial=True)

    def _write(self, finished: FinishedTile) -> None:
        written = self._writer.write_records(
            finished.tile, finished.records, finished.digests, finished.invalid, finished.statistics
        )
        self._stats.bytes_written += written
        self._stats.records_committed += finished.tile.count


@dataclass(frozen=True)
class FinishedTile:
    """A tile in memory, ready to be written."""

    tile: Tile
    records: NDArray[np.uint8]
    """uint8 [views, rows, record_bytes]."""
    digests: NDArray[np.uint64]
    invalid: list[int]
    statistics: TileStatistics
