"""What an earlier run left: a cache of the same settings, and whether anything has to be done still."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from cache_builder.build.parts import part_tiles
from cache_builder.build.plan import Plan, check_settings, refuse_other
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import BuildStats
from cache_builder.datasets.orders import BetterOrder
from cache_builder.format.class_names import NO_NAMES, ClassNames
from cache_builder.format.commits import read_commit_bytes
from cache_builder.format.creation import manifest_there
from cache_builder.format.errors import ConfigError
from cache_builder.format.layout import tiles
from cache_builder.format.manifest import Manifest, differing_names
from cache_builder.format.reader import Cache, open_cache
from cache_builder.format.same_samples import differing_array
from cache_builder.format.statistics import TeacherStatistics
from cache_builder.format.store import open_store


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


def resumed(plan: Plan) -> Manifest | None:
    """The manifest of a cache of the same settings that is there already."""
    out = plan.settings.out
    stored = manifest_there(out, plan.manifest)
    if stored is None:
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


def finished_by_these_settings(plan: Plan) -> BuildResult | None:
    """What there is, where that is of these settings and whole."""
    with suppress(ConfigError):
        return finished(plan)
    return None


def finished(plan: Plan) -> BuildResult | None:
    """What there is, where nothing has to be done."""
    return finished_of(plan, resumed(plan))


def finished_of(plan: Plan, stored: Manifest | None) -> BuildResult | None:
    """As :func:`finished`, of what :func:`resumed` gave."""
    if stored is None:
        return None
    part = part_tiles(stored, plan.settings.rows)
    is_part = len(part) < len(list(tiles(stored)))
    # A tile whose commit was deleted because its shards were damaged is built again, also of a sealed cache.
    commits = read_commit_bytes(open_store(plan.settings.out, read_only=True), part)
    if (stored.cache_id is None and not is_part) or len(commits) < len(part):
        return None
    return result_of(plan.settings, stored, BuildStats(), was_finished=True)


def result_of(
    settings: BuildSettings,
    manifest: Manifest,
    stats: BuildStats,
    was_finished: bool,
    names: ClassNames | None = None,
    sealed: Cache | None = None,
) -> BuildResult:
    """What this run did, and what the teacher did on all views of the cache.

    ``names``, ``sealed``: where they are known already, so that they need not be read.
    """
    cache = sealed or open_cache(settings.out, allow_partial=settings.rows is not None)
    return BuildResult(manifest, stats, was_finished, cache.statistics(), names or cache.names)
