"""What ``kdcache build`` says when it is done."""

from __future__ import annotations

import json
from shlex import quote

from cache_builder.build.finished import BuildResult
from cache_builder.build.settings import BuildSettings
from cache_builder.console.as_built import as_built_facts, as_built_warnings
from cache_builder.console.fidelity import fidelity_facts, fidelity_warnings
from cache_builder.look.inspect import (
    cache_size,
    class_facts,
    over_budget,
    record_in_words,
    size_in_words,
    statistics_lines,
)

# Half-byte columns cut off a few numbers in a hundred records by choice.
_CLIPPED_WORTH_TELLING = 0.05


def summary(settings: BuildSettings, result: BuildResult, seconds: float) -> list[str]:
    """Lines for people: what the cache holds, how large and how faithful it is, and what to do with it."""
    manifest, out = result.manifest, settings.out
    done = f"{result.stats.done:,} views in {seconds:.1f} s"
    if manifest.cache_id is None:
        join = "join the parts: kdcache merge PART... --out CACHE"
        return [f"{out}: this part of the cache is there, {done} by this run; {join}"]
    if result.was_finished:
        return [f"{out} is finished already (cache_id {manifest.cache_id}); nothing to do"]
    return [
        *_contents(settings, result),
        *statistics_lines(result.statistics),
        *_warnings(result),
        f"{done}; cache_id {manifest.cache_id}",
        f"look: kdcache inspect {quote(out)}    serve: kdcache serve {quote(out)}",
    ]


def _contents(settings: BuildSettings, result: BuildResult) -> list[str]:
    """Size, teacher, recipe, classes."""
    manifest = result.manifest
    size = cache_size(settings.out, manifest)
    lines = [
        f"{settings.out}: {manifest.data.samples:,} samples x {manifest.views.count} views, "
        f"{size_in_words(size, manifest)}",
        f"teacher {manifest.teacher.spec}, weights {manifest.teacher.weights}, "
        f"{manifest.input.size} px, {manifest.teacher.precision}",
        f"recipe {manifest.views.recipe.name} {json.dumps(manifest.views.recipe.configuration)}",
        f"record {record_in_words(manifest)}",
    ]
    if said := over_budget(manifest, size, settings.bytes_per_view):
        lines.append(f"size: {said}")
    facts = fidelity_facts(manifest) | as_built_facts(manifest, result.statistics)
    facts |= class_facts(manifest, result.names.own)
    return lines + [f"{name}: {said}" for name, said in facts.items()]


def _warnings(result: BuildResult) -> list[str]:
    """What may surprise: another order of classes, what compression loses, unreadable samples, clipping."""
    manifest, stats = result.manifest, result.stats
    lines = [] if result.order is None else [result.order.warning(manifest.data.spec)]
    lines += [*fidelity_warnings(manifest), *as_built_warnings(manifest, result.statistics)]
    if manifest.invalid_rows:
        lines.append(f"{len(manifest.invalid_rows)} unreadable samples are marked invalid")
    if stats.clipped > _CLIPPED_WORTH_TELLING * stats.done:
        lines.append(
            f"{stats.clipped:,} numbers of {stats.done:,} records were clipped, which are less faithful: the "
            "teacher says more on some images than on those of calibration"
        )
    return lines
