"""The data set and the teacher of a cache that is there already, opened again from what its manifest says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cache_builder.build.classes import StoredClasses
from cache_builder.build.plan import Plan, make_plan
from cache_builder.build.settings import BuildSettings
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.reader import Cache
from cache_builder.format.same_samples import differing_array

UNKNOWN_DIGEST = "unknown"
"""In the manifest of an imported cache."""
_RANDOM = "random (seed "
# How the names of weights files end: a manifest keeps the name, not the folder.
_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")


class NotFoundAgainError(ConfigError):
    """The manifest does not say enough to open the teacher again: name it."""


@dataclass(frozen=True)
class Reopening:
    """What the user says about a data set and a teacher that the manifest names already."""

    data: str | None = None
    """Data set spec; None = the manifest's."""
    teacher: tuple[str, ...] = ()
    """Names; none = the manifest's."""
    weights: tuple[str, ...] = ()
    """``default``, ``random`` or a file for each teacher; none = the manifest's."""
    device: str = "auto"
    precision: str | None = None
    """None = the manifest's."""
    batch_size: int = 64
    workers: int | None = None


def reopened(cache: Cache, wanted: Reopening) -> Plan:
    """A build's plan for the manifest of a cache: its recipe, its rows, the teacher and data set asked for.

    Raises :class:`NotFoundAgainError` where the manifest alone does not lead to the teacher,
    :class:`ConfigError` and :class:`DataError` where something does not fit. The digest of the weights that
    were found is ``plan.manifest.teacher.weights_digest``; nobody has compared it yet.
    """
    manifest = cache.manifest
    teacher, views = manifest.teacher, manifest.views
    names = wanted.teacher or teacher_names(teacher.spec)
    single = len(names) == 1  # of an ensemble the manifest has the first member's normalisation only
    if not wanted.teacher and teacher.weights_digest == UNKNOWN_DIGEST:
        raise NotFoundAgainError("the cache was imported, and nobody knows the weights of its teacher")
    settings = BuildSettings(
        teacher=names,
        weights=wanted.weights or (None if wanted.teacher else _weights(teacher.weights)),
        data=wanted.data or manifest.data.spec,
        out=cache.location,
        name=manifest.name,
        views=views.count,
        seed=views.seed,
        limit=manifest.data.samples,
        input_size=teacher.input_size,
        mean=teacher.mean if single else None,
        std=teacher.std if single else None,
        precision=wanted.precision or teacher.precision,
        device=wanted.device,
        batch_size=wanted.batch_size,
        workers=wanted.workers,
        decoding=manifest.data.decoding,
        ignore_labels=bool((cache.labels < 0).all()),
    )
    stored = StoredClasses(cache.ids, cache.labels, manifest.data.classes, manifest.data.class_names)
    plan = make_plan(settings, stored)
    # The settings name no recipe, so that the plan has the one usual for the data: the cache has its own.
    return replace(plan, manifest=plan.manifest.model_copy(update={"views": views}))


def teacher_names(spec: str) -> tuple[str, ...]:
    """The members of a resolved spec, as ``--teacher`` takes them."""
    return tuple(name.removeprefix("torchvision:") for name in spec.split("+"))


def _weights(described: str) -> tuple[str, ...]:
    return tuple(_weights_of(member) for member in described.split(" + "))


def _weights_of(described: str) -> str:
    """``--weights`` from the manifest's description of where they came from."""
    if described.startswith(_RANDOM):
        return "random"
    if Path(described).is_file():
        return described
    if described.endswith(_FILES):
        raise NotFoundAgainError(
            f"the teacher's weights came from a file named {described!r}, which is not here: give it with "
            "--weights FILE"
        )
    return "default"


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
