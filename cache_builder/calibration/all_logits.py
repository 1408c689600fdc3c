"""Calibrator of codec ``all-logits``: there is nothing to fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.contract import ALONE, Calibration, Calibrator, Scope, missed_budget
from cache_builder.format.codecs import CodecSettings
from cache_builder.format.codecs.all_logits import LARGEST, AllLogits
from cache_builder.format.codecs.masking import LOWEST, is_masked
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, CodecRequest

_OTHERS = ("lose", "bytes_per_view", "top_k", "tail_rank", "tail_step", "value_step")
# Other records' logits may be larger by this factor than those that calibration saw.
_ROOM = 4.0
# The share of the logits' variance that rounding may lose before it counts as a loss.
_ROUNDED = 1e-3


class AllLogitsCalibrator(Calibrator):
    """Every logit in 16 bits."""

    def check(self, classes: int, request: CodecRequest) -> None:
        """Options of records that leave something out."""
        for field in _OTHERS:
            if getattr(request, field) is not None:
                raise ConfigError(
                    f"--exact stores every logit, so that there is nothing to choose: leave "
                    f"--{field.replace('_', '-')} out"
                )

    def asked(self, classes: int, request: CodecRequest) -> CodecRequest:
        """The kind of numbers."""
        return CodecRequest(values=request.values, bytes_per_view=request.bytes_per_view)

    def provisional(self, classes: int, request: CodecRequest) -> CodecSettings:
        """The settings themselves."""
        settings: CodecSettings = self.unfitted(classes, request).codec.settings
        return settings

    def unfitted(self, classes: int, request: CodecRequest) -> Calibration:
        """All logits."""
        codec = AllLogits.of(classes, request.values or "float16")
        section = CalibrationSection(pairs=0, logit_std=0.0, tail_error=0.0)
        return Calibration(codec, section, tuple(missed_budget(float(codec.layout.record_bytes), request)))

    def fit(self, logits: NDArray[np.float32], request: CodecRequest, scope: Scope = ALONE) -> Calibration:
        """As without logits, and what masked classes decode to is told."""
        found = self.unfitted(logits.shape[1], request)
        return replace(found, told=(*_masks_told(logits), *found.told))


def _masks_told(logits: NDArray[np.float32]) -> list[str]:
    """A sentence for people; none where no class is masked."""
    masked = is_masked(logits)
    if not masked.any():
        return []
    throughout, some = int(masked.all(axis=0).sum()), int(masked.any(axis=0).sum())
    return [
        f"masked classes: {throughout} of {logits.shape[1]} in every view, {some - throughout} in some; they "
        f"are stored like all others and decode to what the teacher said, not below {LOWEST:g}"
    ]


def float16_holds(logits: NDArray[np.float32]) -> bool:
    """Whether float16 has room for logits such as these [pairs, C], and tells them apart."""
    masked = is_masked(logits)
    if np.abs(logits).max(where=~masked, initial=0.0) * _ROOM > LARGEST["float16"]:
        return False
    ordinary = np.where(masked, np.float32(0), logits)
    rounding = ordinary.astype(np.float16).astype(np.float64) - ordinary
    around = ordinary - ordinary.mean(axis=0, dtype=np.float64)
    return bool(np.square(rounding).sum() <= _ROUNDED * np.square(around).sum())
