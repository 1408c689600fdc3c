"""What a calibrator is: it chooses a codec's settings and fits its arrays to the teacher's outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.pairs import MAX_PAIRS, calibration_pairs, enough_pairs
from cache_builder.format.codecs import CodecSettings, Ranked
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, CodecRequest, Manifest

_SPACINGS = 16.0


@dataclass(frozen=True)
class Calibration:
    """The codec a cache will use, and how well it did on the calibration logits."""

    codec: Ranked[Any]
    section: CalibrationSection
    """With the rate-distortion table that the settings were chosen on, where there is one."""
    told: tuple[str, ...] = ()
    """Sentences for people: masked classes, a budget that is missed, too few pairs."""

    @property
    def bytes_per_view(self) -> float:
        """Of the chosen row of the table; of the packed record where there is none."""
        chosen = self.section.chosen
        packed = float(self.codec.layout.record_bytes)
        return packed if chosen is None else self.section.table[chosen].bytes_per_view


@dataclass(frozen=True)
class Scope:
    """What calibration logits are of the cache that they are of."""

    views: int = 1
    """So many consecutive logits are of one sample."""
    records: int | None = None
    """Records of the cache; None where nobody knows."""
    is_whole: bool = False
    """Whether the logits are all that the cache will hold: then what they lose is what it loses."""
    advance: Callable[[int, int], None] = lambda done, total: None
    """Is called as a search goes on: settings that were measured, of so many."""


ALONE = Scope()


class Calibrator(ABC):
    """Of one codec. ``classes`` is C; ``request`` is what the user asked for, its ``top_k`` at most C."""

    def check(self, classes: int, request: CodecRequest) -> None:  # noqa: B027
        """Raise :class:`ConfigError` for options that this codec, which the user named, cannot follow."""

    def asked(self, classes: int, request: CodecRequest) -> CodecRequest:
        """What of a request this codec looks at, as the manifest keeps it."""
        return CodecRequest(bytes_per_view=request.bytes_per_view)

    @abstractmethod
    def provisional(self, classes: int, request: CodecRequest) -> CodecSettings:
        """What a manifest holds before calibration."""

    def unfitted(self, classes: int, request: CodecRequest) -> Calibration | None:
        """The codec, where nothing has to be fitted to logits without masks; None where something has."""
        return None

    def groups(self, manifest: Manifest) -> list[tuple[int, range]]:
        """Rows and views of a cache whose logits :meth:`fit` gets, as many views of each row."""
        views = manifest.views
        pairs = calibration_pairs(manifest.data.samples, views.count, manifest.classes, views.seed)
        return [(row, range(view, view + 1)) for view, row in pairs]

    @abstractmethod
    def fit(self, logits: NDArray[np.float32], request: CodecRequest, scope: Scope = ALONE) -> Calibration:
        """The codec that keeps what was asked for, fitted to logits float32 [pairs, C]. Deterministic."""


def few_pairs(pairs: int, classes: int, most: int = MAX_PAIRS) -> list[str]:
    """What to say where a sketch was fitted to few pairs; ``most``: no more are ever looked at."""
    needed = min(enough_pairs(classes), most)
    if pairs >= needed:
        return []
    return [
        f"warning: the sketch of {classes} classes was fitted to {pairs} views, and {needed} or more make it "
        "reliable; more samples or --views give it more"
    ]


def least_spacing(mean: NDArray[np.float64]) -> float:
    """A step of the K values whose eighth, the gap between neighbours, float32 does not round away.

    ``mean`` [C]: of the logits.
    """
    return _SPACINGS * float(np.spacing(np.float32(np.abs(mean).max())))


def refuse_small(request: CodecRequest, field: str, least: float, bits: int) -> None:
    """Raise :class:`ConfigError` for a step with which integers of so many bits do not reach the logits."""
    asked = getattr(request, field)
    if asked is not None and asked < least:
        raise ConfigError(
            f"--{field.replace('_', '-')} {asked:g} is too small for these logits: {bits} bits do not "
            f"reach them; use at least {1.1 * least:.2g}, or leave it to calibration"
        )


def missed_budget(taken: float, request: CodecRequest) -> list[str]:
    """What to say where a record takes more than was asked for."""
    budget = request.bytes_per_view
    if budget is None or taken <= budget:
        return []
    return [
        f"warning: --bytes-per-view {budget:g} is missed: the smallest record of those settings takes about "
        f"{taken:.1f} bytes"
    ]
