"""What the commands do once their arguments are parsed."""

from __future__ import annotations

import json
import sys
import time
from shlex import quote
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from cache_builder.format.errors import ConfigError

# Half-byte columns cut off a few numbers in a hundred records by choice.
_CLIPPED_WORTH_TELLING = 0.05


def run_build(arguments: dict[str, Any]) -> None:
    """Build or continue a cache and print a summary."""
    from cache_builder.build.launch import Launch
    from cache_builder.build.preflight import check_build
    from cache_builder.build.settings import BuildSettings
    from cache_builder.console.progress import BuildProgress

    try:
        settings = BuildSettings(**arguments)
    except ValidationError as error:
        problem = error.errors()[0]
        flag = "--" + str(problem["loc"][0]).replace("_", "-")
        raise ConfigError(f"{flag} {problem['input']!r}: {problem['msg']}") from error
    launch = Launch.from_environment()
    source = check_build(settings, is_first=launch.rank == 0)
    from cache_builder.build.pipeline import BuildResult, build

    console = Console()
    console.quiet = launch.rank > 0  # rank 0 speaks for all
    started = time.monotonic()
    with BuildProgress(console) as progress:
        result: BuildResult = build(settings, progress, launch, source)
    if launch.rank > 0:
        return
    _summary(console, settings.out, settings.bytes_per_view, result, time.monotonic() - started)


def _summary(console: Console, out: str, budget: float, result: Any, seconds: float) -> None:
    from cache_builder.look.inspect import cache_size, class_facts, over_budget, statistics_lines

    manifest, stats = result.manifest, result.stats
    if manifest.cache_id is None:
        text = f"{out}: this part of the cache is there, {stats.done:,} views in {seconds:.1f} s by this run"
        text += "; join the parts: kdcache merge PART... --out CACHE"
        console.print(text, highlight=False, soft_wrap=True, markup=False)
        return
    if result.was_finished:
        text = f"{out} is finished already (cache_id {manifest.cache_id}); nothing to do"
        console.print(text, highlight=False, soft_wrap=True, markup=False)
        return
    size = cache_size(out, manifest)
    records = manifest.data.samples * manifest.views.count
    lines = [
        f"{out}: {manifest.data.samples:,} samples x {manifest.views.count} views, "
        f"{size.total_bytes / 1e6:.2f} MB, {size.bytes_per_view:.1f} bytes per view "
        f"({size.total_bytes / records:.1f} with ids, basis and probe)",
        f"teacher {manifest.teacher.spec}, weights {manifest.teacher.weights}, "
        f"{manifest.input.size} px, {manifest.teacher.precision}",
        f"recipe {manifest.views.recipe.name} {json.dumps(manifest.views.recipe.configuration)}",
    ]
    if said := over_budget(manifest, size, budget):
        lines.append(f"size: {said}")
    lines += [f"{name}: {said}" for name, said in class_facts(manifest, result.names.own).items()]
    lines += statistics_lines(result.statistics)
    if result.order is not None:
        lines.append(result.order.warning(manifest.data.spec))
    if manifest.calibration.logit_std:
        lines.append(
            f"{manifest.codec.described(manifest.classes)} of {manifest.classes} classes: decoded "
            f"logits are off by {manifest.calibration.tail_error:.3f} rms, the logits' own spread is "
            f"{manifest.calibration.logit_std:.3f}"
        )
    if manifest.invalid_rows:
        lines.append(f"{len(manifest.invalid_rows)} unreadable samples are marked invalid")
    if stats.clipped > _CLIPPED_WORTH_TELLING * stats.done:
        lines.append(
            f"{stats.clipped:,} numbers of {stats.done:,} records were clipped, which are less faithful: the "
            "teacher says more on some images than on those of calibration"
        )
    lines += [
        f"{stats.done:,} views in {seconds:.1f} s; cache_id {manifest.cache_id}",
        f"look: kdcache inspect {quote(out)}    serve: kdcache serve {quote(out)}",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def run_serve(caches: list[str], host: str, port: int, workers: int) -> None:
    """Serve caches until stopped."""
    try:
        from logit_server.run import serve
        from logit_server.settings import Settings
    except ModuleNotFoundError as error:
        raise ConfigError(f"the server needs {error.name}: pip install 'kdcache[server]'") from error
    serve(Settings.checked(caches=caches, host=host, port=port, workers=workers))


def run_show(cache: str, sample: str, view: int, data: str | None, out: str | None) -> None:
    """Write the picture of one record."""
    from cache_builder.build.preflight import check_cache, check_reopening
    from cache_builder.format.locations import local_output

    check_cache(cache)
    check_reopening(data, (), ())
    from cache_builder.look.show import show_view

    path = show_view(cache, sample, view, data, None if out is None else local_output(out))
    Console().print(f"wrote {path}", highlight=False, soft_wrap=True, markup=False)


def run_inspect(cache: str, sample: str | None, view: int, as_json: bool, picture: str | None) -> None:
    """Describe a cache, for people or as JSON; ``picture``: where its rate-distortion table is drawn."""
    from cache_builder.format.locations import local_output
    from cache_builder.look.inspect import describe, show

    path = None if picture is None else local_output(picture, "--calibration")
    description = describe(cache, sample, view)
    if path is not None:
        from cache_builder.calibration.rate_distortion import plot

        plot(description.manifest.calibration, description.manifest.name, path)
    if as_json:
        sys.stdout.write(json.dumps(description.as_json()) + "\n")
    else:
        show(description, Console())
