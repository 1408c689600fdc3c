"""The flow of a build: what is there already, begin, run the tiles, seal."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from cache_builder.build.begin import begin, look_at_teacher
from cache_builder.build.compiling import compile_teacher
from cache_builder.build.finished import (
    BuildResult,
    finished,
    finished_by_these_settings,
    result_of,
    resumed,
)
from cache_builder.build.launch import ALONE, Launch, await_others
from cache_builder.build.output import check_output
from cache_builder.build.parts import begun_like, of_part, part_tiles
from cache_builder.build.plan import Plan, as_there, check_settings, make_plan
from cache_builder.build.repair import withdraw_damaged
from cache_builder.build.settings import BuildSettings
from cache_builder.build.tile_runner import TileRunner
from cache_builder.console.memory import memory_failures
from cache_builder.console.progress import SILENT, Progress
from cache_builder.datasets import ImageSource, left_out_of
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.layout import tiles
from cache_builder.format.locks.lock import Hold, JoinedHold, claimed
from cache_builder.format.root import read_manifest
from cache_builder.format.writer import CacheWriter

_NAMED_IN_ERRORS = 5


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
        there_already = None if settings.repair else finished_by_these_settings(plan)
        if there_already is not None:
            return there_already
        with claimed(settings.out, launch.name) as hold:
            if settings.repair:
                _repair(plan, progress, hold)
            return finished(plan) or _build(plan, progress, hold, launch)


def _build(plan: Plan, progress: Progress, hold: Hold, launch: Launch) -> BuildResult:
    stored = resumed(plan)
    _say_what_is_assumed(plan, progress)
    if plan.settings.compile:
        compile_teacher(plan, progress)
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
    return replace(result_of(plan, manifest, stats, was_finished=False), order=runner.order.better())


def _say_what_is_assumed(plan: Plan, progress: Progress) -> None:
    """Before the long work: what would make it useless where it is wrong."""
    for name in ("pictures", "class names"):
        if name in plan.manifest.environment:
            progress.say(f"{name}: {plan.manifest.environment[name]}")


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
    stats = TileRunner(plan, manifest, writer, progress, launch).run()
    return BuildResult(manifest, stats, was_finished=False, statistics=None)
