"""Calibrator of codec ``all-logits``: there is nothing to fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.contract import ALONE, Calibration, Calibrator, Scope, missed_budget
from cache_builder.format.codecs import CodecSettings
from cache_builder.format.codecs.all_logits import AllLogits
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, CodecRequest

_OTHERS = ("lose", "top_k", "tail_rank", "tail_step", "value_step")


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
        """As without logits."""
        return self.unfitted(logits.shape[1], request)
