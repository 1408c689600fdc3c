"""``kdcache extend``: more views for a finished cache, by the same teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cache_builder.build.output import check_output
from cache_builder.build.parts import copy_begun
from cache_builder.build.plan import Plan
from cache_builder.build.reopen import check_samples, check_teacher, reopened
from cache_builder.build.tile_runner import TileRunner
from cache_builder.build.work import Listed, Tally
from cache_builder.console.as_built import kept_in_words
from cache_builder.console.fidelity import CALIBRATED_VIEWS, calibrated_views, chosen_point
from cache_builder.console.memory import memory_failures
from cache_builder.console.progress import BuildProgress, Progress
from cache_builder.datasets import ImageSample, ImageSource
from cache_builder.datasets.source import Wrapped
from cache_builder.exchange.replace_folder import aside, recover, replace_folder
from cache_builder.exchange.settings import ExtendSettings
from cache_builder.exchange.tiles import copy_tile
from cache_builder.format.codecs import Fields
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.extension import EXTENDS, line_of
from cache_builder.format.kept import kept_figures
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.locations import followed, is_remote, local_path
from cache_builder.format.locks.lock import Hold, claimed, clear
from cache_builder.format.manifest import Manifest, is_same_build
from cache_builder.format.owned import foreign, remove
from cache_builder.format.positions import require_one_position
from cache_builder.format.reader import Cache, open_cache
from cache_builder.format.root import read_manifest
from cache_builder.format.statistics import TileStatistics
from cache_builder.format.writer import NO_RESULTS, CacheWriter
from cache_builder.views import recipe_from
from cache_builder.views.probe import probe_differences


def run_extend(settings: ExtendSettings) -> None:
    """Extend and say what came of it."""
    console = Console()
    with BuildProgress(console) as progress:
        manifest = extend(settings, progress)
    out = settings.out or settings.cache
    said = f"{out}: {manifest.views.count} views; cache_id {manifest.cache_id}"
    for line in (said, *_not_calibrated(manifest, out)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _not_calibrated(manifest: Manifest, location: str) -> list[str]:
    """What to say of views that were added: calibration's figures stay those of the views before."""
    known = calibrated_views(manifest)
    if chosen_point(manifest) is None or known == manifest.views.count:
        return []
    cache = open_cache(location)
    commits = [cache.commits[tile.key].statistics for tile in cache.tiles if tile.views.stop > known]
    kept = kept_figures(statistics.kept for statistics in commits if statistics is not None)
    said = f"the record was calibrated when the cache had {known} views; "
    if kept is None:
        return [said + "what it loses of those that were added was not measured, and may be more"]
    return [said + f"of those that were added: {kept_in_words(kept)}"]


def extend(settings: ExtendSettings, progress: Progress) -> Manifest:
    """Add views. The cache stays as it is, and readable, until the extended one is whole and takes its place.

    Where the settings name an output, the extended cache goes there, and the other one stays for good.
    The same call continues after any death. Raises :class:`ConfigError` for another teacher or fewer views,
    :class:`DataError` for another data set or one that renders differently.
    """
    if settings.out is not None:
        return _extend_beside(settings, settings.out, progress)
    if is_remote(settings.cache):
        raise ConfigError(
            f"{settings.cache}: an object store cannot exchange two caches in one step: give the extended "
            "one a place of its own with --out"
        )
    root = followed(local_path(settings.cache))
    making = root.with_name(f".{root.name}.extending")
    if not making.exists() and not aside(root).exists():
        cache = open_cache(settings.cache)
        require_one_position(cache.manifest, settings.cache, "extend")
        if settings.views == cache.manifest.views.count:
            return cache.manifest  # without the lock: it may lie on a disk that cannot be written to
    with claimed(settings.cache, doing="extended") as hold, memory_failures(settings.batch_size):
        recover(root)
        cache = open_cache(root)
        if settings.views == cache.manifest.views.count:
            remove(making)  # what an extension that died at its very end left
            return cache.manifest
        _check_nothing_else(root)
        _check_views(cache, settings.views)
        plan = _plan(cache, settings, making)
        manifest = _run(cache, plan, _begun(cache, plan, making, hold), progress)
        stays = replace_folder(making, root)
        if stays is not None:
            progress.say(f"{stays} holds what was in {root} and is none of a cache: look, and move it away")
        return manifest


def _extend_beside(settings: ExtendSettings, out: str, progress: Progress) -> Manifest:
    """Write the extended cache to a place of its own; the same call continues after any death."""
    cache = open_cache(settings.cache)
    require_one_position(cache.manifest, settings.cache, "extend")
    _check_views(cache, settings.views)
    check_output(out)
    with memory_failures(settings.batch_size):
        plan = _plan(cache, settings, out)
        begun = read_manifest(out)
        if begun is not None and not is_same_build(begun, plan.manifest):
            raise ConfigError(f"{out} holds another cache already: choose another --out or remove it")
        if begun is not None and begun.cache_id is not None:
            clear(out)
            return open_cache(out).manifest  # without the lock: it may lie where nothing can be written
        with claimed(out, doing="extended") as hold:
            begun = begun or copy_begun(cache, out, plan.manifest)
            writer = ExtendingWriter(cache, out, begun, hold.check)
            writer.sweep()
            return _run(cache, plan, writer, progress)


def _run(cache: Cache, plan: Plan, writer: ExtendingWriter, progress: Progress) -> Manifest:
    """Copy what stays, build what is new, seal."""
    _copy_old(cache, writer, progress)
    everything = list(tiles(writer.manifest))
    tally = Tally(writer.location, everything, is_live=False)
    TileRunner(plan, writer.manifest, writer, progress).run(Listed(everything, tally))
    return writer.finish()


def _check_nothing_else(root: Path) -> None:
    """The old cache is removed at the end, and with it nothing that somebody else put there."""
    others = foreign(root)
    if others:
        raise ConfigError(
            f"{root} holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}, which no cache has "
            "and which could not stay when the extended one takes its place: move it away and run again"
        )


def _check_views(cache: Cache, views: int) -> None:
    stored = cache.manifest.views
    if views < stored.count:
        raise ConfigError(f"--views {views}: {cache.location} has {stored.count} already, extend adds some")
    most = recipe_from(stored.recipe).max_views()
    if most is not None and views > most:
        raise ConfigError(f"recipe {stored.recipe.name!r} is deterministic: more than {most} would be equal")


def _plan(cache: Cache, settings: ExtendSettings, out: Path | str) -> Plan:
    """The build of the extended cache: the teacher, data set and settings of the old one, checked."""
    plan = reopened(cache, settings)
    check_teacher(cache, plan)
    check_samples(cache, plan)
    _check_pictures(cache, plan)
    old = cache.manifest
    here = plan.manifest.environment
    added = {
        f"extended to {settings.views} views: {name}": value
        for name, value in here.items()
        if old.environment.get(name) != value
    }
    manifest = old.model_copy(
        update={
            **NO_RESULTS,
            "name": _name(settings, old),
            "views": old.views.model_copy(update={"count": settings.views}),
            "environment": old.environment | added | _lineage(old),
        }
    )
    # Rows that were unreadable stay so, in every view; any other such row stops the run.
    invalid = frozenset(old.invalid_rows)
    build = plan.settings.model_copy(update={"out": str(out), "on_error": "skip" if invalid else "fail"})
    source = WithoutRows(plan.source, invalid) if invalid else plan.source
    return replace(plan, settings=build, manifest=manifest, source=source)


def _name(settings: ExtendSettings, old: Manifest) -> str:
    """What the extended cache is called: as the old one, whose place it takes, or by its own."""
    return old.name if settings.out is None else Path(settings.out.rstrip("/")).name.removesuffix(".zarr")


def _lineage(old: Manifest) -> dict[str, str]:
    """What an extended cache says of the one it was made from; servers go on with the old one by it."""
    return {CALIBRATED_VIEWS: str(calibrated_views(old)), EXTENDS: line_of(old)}


def _check_pictures(cache: Cache, plan: Plan) -> None:
    manifest = cache.manifest
    if not manifest.probe.pairs:
        return
    for found in probe_differences(manifest, cache.probe_pixels, plan.source, cache.ids):
        if found.difference > manifest.probe.tolerance:
            raise DataError(
                f"this machine renders other pictures than the cache's views: sample {found.sample_id!r} in "
                f"view {found.view} differs by {found.difference:.1f} levels, {manifest.probe.tolerance:g} "
                "are expected at most; use the libraries in the manifest's probe section"
            )


def _begun(cache: Cache, plan: Plan, making: Path, hold: Hold) -> ExtendingWriter:
    """A writer of the extended store, which is created, or was begun by the same command before."""
    begun = read_manifest(making) if making.exists() else None
    if begun is None or not is_same_build(begun, plan.manifest):
        remove(making)
        begun = copy_begun(cache, str(making), plan.manifest)
    writer = ExtendingWriter(cache, making, begun, hold.check)
    writer.sweep()
    return writer


def _copy_old(cache: Cache, writer: CacheWriter, progress: Progress) -> None:
    """Tiles that are the same in both caches, byte for byte."""
    wanted = set(tiles(writer.manifest))
    same = [tile for tile in cache.tiles if tile in wanted]
    todo = [tile for tile in same if not writer.is_committed(tile)]
    progress.start("copying", len(same), len(same) - len(todo), unit="tiles")
    for done, tile in enumerate(todo, start=len(same) - len(todo) + 1):
        copy_tile(cache, writer, tile)
        progress.update(done, last=done == len(same))


class ExtendingWriter(CacheWriter):
    """Writes tiles of which some views are in another cache already: their records are taken from there."""

    def __init__(
        self, old: Cache, location: Path | str, manifest: Manifest, check: Callable[[], None]
    ) -> None:
        super().__init__(location, manifest, check)
        self._old = old

    def shared_fields(self, tile: Tile) -> Fields | None:
        """Those of the old views, which new views of the same tile are then encoded with."""
        if tile.view_start >= self._old.manifest.views.count:
            return None
        codec = self.manifest.codec
        old = codec.layout.unpack(self._old.read_rows(tile.view_start, tile.rows))
        return {
            field.name: np.array(old[field.name]) for field in codec.layout.fields if field.shared
        } or None

    def write_tile(
        self,
        tile: Tile,
        fields: Fields,
        digests: NDArray[np.uint64],
        invalid_rows: Iterable[int] = (),
        statistics: TileStatistics | None = None,
    ) -> int:
        """As :class:`CacheWriter` does; a tile with old and new views was computed whole."""
        invalid = sorted(invalid_rows)
        self._check_readable(tile, invalid)
        if tile.group == 0:
            self._check_unchanged(tile, digests)
        columns = {name: np.array(column) for name, column in fields.items()}
        for view in tile.views:
            if view < self._old.manifest.views.count:
                records = self._old.read_rows(view, tile.rows)
                for field in self.manifest.codec.layout.fields:
                    place = 0 if field.shared else view - tile.view_start
                    columns[field.name][place] = self.manifest.codec.layout.unpack(records)[field.name]
        return super().write_tile(tile, columns, digests, invalid, statistics)

    def _check_readable(self, tile: Tile, invalid: list[int]) -> None:
        before = [row for row in self._old.manifest.invalid_rows if row in tile.rows]
        lost = [repr(self._old.ids[row]) for row in invalid if row not in before]
        if lost:
            raise DataError(
                f"{len(lost)} samples could be read when the cache was built and cannot now: "
                f"{', '.join(lost[:3])}; restore them"
            )

    def _check_unchanged(self, tile: Tile, digests: NDArray[np.uint64]) -> None:
        before = self._old.read_digests(tile.rows)
        changed = np.flatnonzero((before != digests) & (before != 0) & (digests != 0))
        if changed.size:
            first = self._old.ids[tile.row_start + int(changed[0])]
            raise DataError(
                f"{changed.size} samples changed since the cache was built, the first is {first!r}: restore "
                "them"
            )


class WithoutRows(Wrapped):
    """A data set some samples of which cannot be read, whatever is on the disk by now."""

    def __init__(self, source: ImageSource, rows: frozenset[int]) -> None:
        super().__init__(source)
        self._rows = rows

    def read(self, index: int) -> ImageSample:
        """As the data set does, but for those rows."""
        if index in self._rows:
            raise DataError(f"row {index} could not be read when the cache was built")
        return self._source.read(index)
