"""The data set and the teacher of a cache that is there already, opened again from what its manifest says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cache_builder.build.classes import StoredClasses
from cache_builder.build.plan import Plan, make_plan
from cache_builder.build.settings import BuildSettings, Reopening
from cache_builder.datasets import check_recorded
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.manifest import RequestSection
from cache_builder.format.reader import Cache
from cache_builder.format.same_samples import differing_array
from cache_builder.teachers.weight_places import split_entry

UNKNOWN_DIGEST = "unknown"
"""In the manifest of an imported cache."""


class NotFoundAgainError(ConfigError):
    """The manifest does not say enough to open the teacher again: name it."""


def reopened(cache: Cache, wanted: Reopening) -> Plan:
    """A build's plan for the manifest of a cache: its recipe, its rows, the teacher and data set asked for.

    Raises :class:`NotFoundAgainError` where the manifest alone does not lead to the teacher,
    :class:`ConfigError` and :class:`DataError` where something does not fit. The digest of the weights that
    were found is ``plan.manifest.teacher.weights_digest``; nobody has compared it yet.
    """
    manifest = cache.manifest
    teacher, views, seen, stored = manifest.teacher, manifest.views, manifest.input, manifest.requested
    names = wanted.teacher or stored.teacher
    single = len(names) == 1  # of an ensemble the manifest has the first member's normalisation only
    if not names or (not wanted.teacher and teacher.weights_digest == UNKNOWN_DIGEST):
        raise NotFoundAgainError("the cache was imported, and nobody knows the weights of its teacher")
    if wanted.data is None:
        check_recorded(manifest.data.spec)
    settings = BuildSettings(
        teacher=names,
        weights=wanted.weights or (None if wanted.teacher else _weights(stored)),
        data=wanted.data or manifest.data.spec,
        out=cache.location,
        name=manifest.name,
        views=views.count,
        seed=views.seed,
        limit=manifest.data.samples,
        input_size=seen.size,
        mean=seen.mean if single else stored.mean,
        std=seen.std if single else stored.std,
        precision=wanted.precision or teacher.precision,
        device=wanted.device,
        batch_size=wanted.batch_size,
        workers=wanted.workers,
        decoding=manifest.input.decoding,
        ignore_labels=bool((cache.labels < 0).all()),
    )
    classes = StoredClasses(cache.ids, cache.labels, manifest.classes, cache.class_names)
    plan = make_plan(settings, classes)
    # The settings name no recipe, so that the plan has the one usual for the data: the cache has its own.
    return replace(plan, manifest=plan.manifest.model_copy(update={"views": views}))


def _weights(stored: RequestSection) -> tuple[str, ...] | None:
    """``--weights`` as the builder was given them; a file must be there still."""
    for given in stored.weights:
        if given not in ("default", "random") and not Path(split_entry(given)[0]).is_file():
            raise NotFoundAgainError(
                f"the teacher's weights came from a file named {given!r}, which is not here: give it with "
                "--weights FILE"
            )
    return stored.weights or None


def check_teacher(cache: Cache, plan: Plan) -> None:
    """Raise :class:`ConfigError` unless the plan's teacher is the cache's."""
    found, stored = plan.manifest.teacher, cache.manifest.teacher
    if found.weights_digest != stored.weights_digest:
        raise ConfigError(
            f"another teacher: {found.spec} with weights {found.weights} has digest {found.weights_digest}, "
            f"{cache.location} was built with {stored.spec}, weights {stored.weights}, digest "
            f"{stored.weights_digest}; give the same --weights"
        )


def check_samples(cache: Cache, plan: Plan) -> None:
    """Raise :class:`DataError` unless the plan's data set has the cache's ids and labels, row by row."""
    path = differing_array(cache, plan.table)
    if path is not None:
        raise DataError(
            f"{plan.settings.data} has other sample ids or labels than {cache.location} ({path} "
            "differs): `kdcache verify CACHE --data SPEC` names the first"
        )
