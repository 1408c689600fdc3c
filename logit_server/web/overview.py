"""What the pages say about a cache."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePath

from cache_builder.console.as_built import as_built_facts, as_built_warnings
from cache_builder.console.fidelity import fidelity_facts, fidelity_warnings
from cache_builder.format.statistics import TeacherStatistics
from cache_builder.format.wire import cache_path
from logit_server.served_caches import ServedCache

_WHOLE_NAMES = ("digits",)
"""Data sets that are named without a place on a disk."""
_UNMEASURED = "not measured by the release that built the cache"


@dataclass(frozen=True)
class Overview:
    """One cache, for people. No path of the builder's machine is in it."""

    served: ServedCache
    teacher: str
    weights: str
    data: str
    recipe: str
    record: str
    """What a record holds."""
    lost: str
    """What the record loses, in one sentence."""
    losses: str
    """What losses see of the teacher; empty where that is everything."""
    facts: dict[str, str]
    warnings: list[str]
    statistics: TeacherStatistics | None
    command: str
    """What trains a student from the cache."""

    @property
    def name(self) -> str:
        """The name on this server."""
        return self.served.name

    @property
    def bytes_per_view(self) -> float:
        """Bytes of a record on disk."""
        return self.served.stored_bytes / (self.served.samples * self.served.views)


def overview(served: ServedCache, base: str) -> Overview:
    """What is known of a cache. ``base``: the URL by which the reader reached the server."""
    manifest = served.manifest
    statistics = served.cache.statistics()
    facts = fidelity_facts(manifest) | as_built_facts(manifest, statistics)
    warnings = [*fidelity_warnings(manifest), *as_built_warnings(manifest, statistics)]
    return Overview(
        served=served,
        teacher=manifest.teacher.spec,
        weights=_without_folder(manifest.teacher.weights),
        data=without_path(manifest.data.spec),
        recipe=manifest.views.recipe.name,
        record=manifest.codec.described(manifest.classes),
        lost=facts.get("lost", _UNMEASURED),
        losses=facts.get("losses", ""),
        facts=facts,
        warnings=[warning.removeprefix("WARNING: ") for warning in warnings],
        statistics=statistics,
        command=train_command(served, base),
    )


def train_command(served: ServedCache, base: str) -> str:
    """A ``kdtrain`` command for a shell; where the data set lies is for the reader to fill in."""
    url = base.rstrip("/") + cache_path(served.name)
    data = without_path(served.manifest.data.spec)
    return shlex.join(["kdtrain", "--cache", url, "--data", data, "--student", "resnet18", "--loss", "kd"])


def without_path(spec: str) -> str:
    """A data set without the place where the builder had it: ``imagefolder:PATH``."""
    kind, colon, rest = spec.partition(":")
    if not colon or kind in _WHOLE_NAMES:
        return spec
    if kind == "torchvision":
        return f"torchvision:{rest.partition(':')[0]}:PATH"
    return f"{kind}:PATH"


def _without_folder(weights: str) -> str:
    """Weights files by name alone; URLs and the names of published weights stay."""
    if re.match(r"\w+://", weights):
        return weights
    return PurePath(weights).name if weights.startswith(("/", "~", ".")) else weights
