"""Calibrator of codec ``topk-tail``: every class is stored one by one, and only masks are fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.contract import ALONE, Calibration, Calibrator, Scope, missed_budget
from cache_builder.calibration.masks import Masks
from cache_builder.format.codecs import CodecSettings
from cache_builder.format.codecs.topk_tail import TopkTail
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, CodecRequest

EXACT_UP_TO = 32
"""Up to this many classes an exact record is smaller than a sketch would be."""
_TAIL_OPTIONS = ("tail_rank", "tail_step", "value_step")


class ExactCalibrator(Calibrator):
    """K = C, or all classes but those that the teacher masks in every view."""

    def check(self, classes: int, request: CodecRequest) -> None:
        """A smaller K, or options of a tail."""
        if request.top_k is not None and request.top_k < classes:
            raise ConfigError(
                f"--codec topk-tail stores all {classes} classes one by one, and --top-k {request.top_k} "
                "asks for fewer: leave --top-k out, or use --codec class-sketch"
            )
        for field in _TAIL_OPTIONS:
            if getattr(request, field) is not None:
                raise ConfigError(
                    f"--codec topk-tail stores all {classes} classes one by one, so that there is no tail: "
                    f"leave --{field.replace('_', '-')} out, or use --codec class-sketch"
                )

    def asked(self, classes: int, request: CodecRequest) -> CodecRequest:
        """Nothing but K, which is null where few classes are stored anyway."""
        return CodecRequest(top_k=request.top_k if is_exact(classes, request) else classes)

    def provisional(self, classes: int, request: CodecRequest) -> CodecSettings:
        """The settings of K = C."""
        return TopkTail.without_tail(classes).settings

    def unfitted(self, classes: int, request: CodecRequest) -> Calibration:
        """K = C."""
        codec = TopkTail.without_tail(classes)
        section = CalibrationSection(pairs=0, logit_std=0.0, tail_error=0.0)
        return Calibration(codec, section, tuple(missed_budget(float(codec.layout.record_bytes), request)))

    def fit(self, logits: NDArray[np.float32], request: CodecRequest, scope: Scope = ALONE) -> Calibration:
        """As without logits, but classes that these mask throughout are constants of the mean."""
        masks = Masks.of(logits)
        found = self.unfitted(masks.left_count, request)
        section = found.section.model_copy(update={"pairs": len(logits)})
        return replace(masks.widened(found), section=section)


def is_exact(classes: int, request: CodecRequest) -> bool:
    """Whether every class is stored one by one where the user names no codec."""
    if request.top_k is not None:
        return request.top_k >= classes
    return classes <= EXACT_UP_TO


def nothing_lost(lose: float | None, found: Calibration) -> list[str]:
    """What to say where ``--lose`` was given, and the classes are stored one by one all the same."""
    settings = found.codec.settings
    if lose is None or settings.name != "topk-tail":
        return []
    count = settings.kept(found.codec.width)
    left = "" if count == found.codec.width else " that the teacher does not mask"
    return [
        f"--lose {lose:g} has no effect: each of the {count} classes{left} is stored by itself, and nothing "
        "is lost but rounding to 8 bits; --codec joint-sketch stores a sketch, which may be smaller"
    ]
