"""Calibrator of codec ``joint-sketch``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.contract import ALONE, Calibration, Calibrator, Scope, missed_budget
from cache_builder.calibration.joint_search import VALUE_STEP, Search
from cache_builder.calibration.masks import Masks
from cache_builder.calibration.pairs import group_rows, view_groups
from cache_builder.console.limits import FEW
from cache_builder.format.codecs import CodecSettings
from cache_builder.format.codecs.digits import WIDE
from cache_builder.format.codecs.joint_sketch import MOST_CLASSES, VALUE_LIMIT, JointSketchSettings
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CodecRequest, Manifest

_FEWER = (3, 1)
"""K that are tried where a budget is missed."""


class JointSketchCalibrator(Calibrator):
    """A sketch that the views of a sample share, one of each view's own, K classes put right one by one."""

    def check(self, classes: int, request: CodecRequest) -> None:
        """A K that leaves nothing to sketch, and too many classes."""
        if request.top_k is not None and request.top_k >= classes:
            raise ConfigError(
                f"--codec joint-sketch stores some classes one by one and sketches the others, and --top-k "
                f"{request.top_k} leaves none of {classes}: use a smaller --top-k, or --codec topk-tail"
            )
        if classes > MOST_CLASSES:
            raise ConfigError(
                f"--codec joint-sketch is for up to {MOST_CLASSES} classes, and the teacher has {classes}: "
                "use --codec class-sketch"
            )

    def asked(self, classes: int, request: CodecRequest) -> CodecRequest:
        """All of it."""
        return request

    def groups(self, manifest: Manifest) -> list[tuple[int, range]]:
        """Whole samples, in all views of the first tile; of few samples also in those of other tiles."""
        height, samples, classes = manifest.tiling.views, manifest.data.samples, manifest.classes
        rows = group_rows(samples, height, classes, manifest.views.seed)
        found = view_groups(len(rows), height, manifest.views.count, classes)
        return [(row, views) for views in found for row in rows]

    def provisional(self, classes: int, request: CodecRequest) -> CodecSettings:
        """A sketch whose numbers are to come."""
        top_k = request.top_k or min(FEW, classes - 1)
        return JointSketchSettings(
            top_k=top_k,
            value_step=request.value_step or VALUE_STEP,
            rank=1,
            step=request.tail_step or 1.0,
            finer=0,
            dead_zone=0.0,
            sample_values=((1, 3),),
            view_values=((2, 3), (top_k, WIDE), (top_k, 2 * VALUE_LIMIT + 1)),
        )

    def fit(self, logits: NDArray[np.float32], request: CodecRequest, scope: Scope = ALONE) -> Calibration:
        """Choose the step and fit the sketch; masked classes are left out of it all."""
        masks = Masks.of(logits)
        self.check(masks.left_count, request)
        left = masks.left(logits)
        grouped = left.reshape(-1, scope.views, left.shape[1])
        found = Search(grouped, request, scope).calibration()
        for top_k in _FEWER if request.top_k is None else ():
            if not missed_budget(found.bytes_per_view, request) or top_k >= masks.left_count:
                break
            fewer = request.model_copy(update={"top_k": top_k})
            found = Search(grouped, fewer, scope).calibration()
        return masks.widened(found)
