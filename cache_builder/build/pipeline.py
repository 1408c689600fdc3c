"""The flow of a build: what is there already, begin, run the tiles, seal."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from cache_builder.build.begin import begun
from cache_builder.build.compiling import compile_teacher
from cache_builder.build.finished import (
    BuildResult,
    finished,
    finished_by_these_settings,
    finished_of,
    result_of,
    resumed,
)
from cache_builder.build.launch import ALONE, Launch, await_others
from cache_builder.build.output import check_output
from cache_builder.build.parts import of_part, part_tiles
from cache_builder.build.plan import Plan, as_there, make_plan
from cache_builder.build.repair import repair
from cache_builder.build.settings import BuildSettings
from cache_builder.build.sharing import build_together
from cache_builder.build.tile_runner import TileRunner
from cache_builder.build.work import Listed, Tally
from cache_builder.console.memory import memory_failures
from cache_builder.console.progress import SILENT, Progress
from cache_builder.datasets import ImageSource
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.layout import tiles
from cache_builder.format.locks.lock import Hold, JoinedHold, claimed, clear
from cache_builder.format.manifest import Manifest
from cache_builder.format.root import read_manifest
from cache_builder.format.writer import CacheWriter


def build(
    settings: BuildSettings,
    progress: Progress = SILENT,
    launch: Launch = ALONE,
    source: ImageSource | None = None,
) -> BuildResult:
    """Build or continue a cache. Committed tiles survive whatever happens.

    ``progress``: where it says how far it is; a ``BuildProgress`` of ``cache_builder.console.progress`` shows
    it on a console. ``launch``: the processes that build it together. ``source``: the data set, where
    :func:`check_build` has opened it, which has looked at the output too. Raises :class:`ConfigError` when
    the output holds a cache of other settings, or something else, and while another process builds it.
    """
    if settings.engine == "ray":
        from cache_builder.build.cluster.driver import build_on_ray

        if launch.world > 1 or settings.share:
            raise ConfigError("--engine ray starts its own processes: run it without torchrun and --share")
        return build_on_ray(settings, progress, source)
    _refuse_cluster_options(settings)
    if settings.repair and (launch.world > 1 or settings.share):
        other = "--share" if settings.share else "torchrun"
        raise ConfigError(f"--repair is for one process: run it without {other}, then build as before")
    device = launch.device(settings.device, torch.cuda.device_count())
    settings = settings.model_copy(update={"device": device})
    if launch.rank == 0 and not settings.share and source is None:
        check_output(settings.out)
    with memory_failures(settings.batch_size):
        before = read_manifest(settings.out)
        there = as_there(settings, before)
        # A cache that is there may have had its pictures decoded by an older rule.
        same = there.decoding == settings.decoding
        plan = of_part(make_plan(there, source=source if same else None))
        if settings.share:
            return build_together(plan, progress)
        if launch.rank:
            return _join(plan, progress, launch)
        # Before the lock: a finished cache may lie on a disk that cannot be written to. Where it is of other
        # settings, somebody may be building it now, which is for the lock to say.
        if before is not None and not settings.repair:
            there_already = finished_by_these_settings(plan)
            if there_already is not None:
                clear(settings.out)
                return there_already
        with claimed(settings.out, launch.name) as hold:
            if settings.repair:
                repair(plan, progress, hold)
            stored = resumed(plan)
            return finished_of(plan, stored) or _build(plan, progress, hold, launch, stored)


def _refuse_cluster_options(settings: BuildSettings) -> None:
    for name in ("address", "ray_teachers", "ray_decoders", "ray_cpus"):
        if getattr(settings, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is for --engine ray: give both or neither")


def _build(
    plan: Plan, progress: Progress, hold: Hold, launch: Launch, stored: Manifest | None
) -> BuildResult:
    out, store = plan.settings.out, begun(plan, progress, hold, stored)
    manifest, writer = store.manifest, store.writer(out, hold.check)
    writer.sweep()
    hold.ready()
    began = time.monotonic()
    everything = part_tiles(manifest, plan.settings.rows)
    # A store that was created a moment ago has nothing to be listed.
    committed = () if writer.is_new else None
    tally = Tally(out, everything, is_live=launch.world > 1, committed=committed)
    runner = TileRunner(plan, manifest, writer, progress)
    stats = runner.run(Listed(launch.share(everything), tally))
    if launch.world > 1:
        await_others(out, tally, progress, stats.done, time.monotonic() - began)
    if not tally.missing and len(everything) == len(list(tiles(manifest))):
        manifest = writer.finish()  # a part stays open
    result = result_of(plan.settings, manifest, stats, False, plan.table.names, writer.sealed)
    return replace(result, order=runner.order.better())


def _join(plan: Plan, progress: Progress, launch: Launch) -> BuildResult:
    """The share of another process than rank 0, once that has created the store."""
    assert launch.name is not None
    hold = JoinedHold(plan.settings.out, launch.name)
    hold.wait(lambda: finished_by_these_settings(plan) is not None)
    there_already = finished(plan)
    if there_already is not None:
        return there_already
    if plan.settings.compile:
        compile_teacher(plan, progress)
    manifest = resumed(plan)
    if manifest is None:
        raise KDCacheError(
            f"{plan.settings.out}: rank 0 said that it is begun, and there is none: does it lie on a "
            "disk that all ranks share?"
        )
    writer = CacheWriter(plan.settings.out, manifest, hold.check)
    everything = part_tiles(manifest, plan.settings.rows)
    work = Listed(launch.share(everything), Tally(plan.settings.out, everything, is_live=False))
    stats = TileRunner(plan, manifest, writer, progress).run(work)
    return BuildResult(manifest, stats, was_finished=False, statistics=None)
