"""Calibrator of codec ``joint-sketch``: the step, which says what is stored, how finely, and what is lost.

What a step loses and costs is known from the integers that it gives, without encoding a record, so that a step
is found by bisection. A few steps around it, by what they lose, are the table that people see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.contract import Calibration, Calibrator, missed_budget
from cache_builder.calibration.fidelity import Held, measured_point
from cache_builder.calibration.joint_fit import (
    BASIS_BITS,
    Quantised,
    Spread,
    codec_of,
    stored_basis,
)
from cache_builder.calibration.masks import Masks
from cache_builder.calibration.pairs import group_rows
from cache_builder.calibration.sketch import principal_components
from cache_builder.format.codecs import CodecSettings
from cache_builder.format.codecs.joint_sketch import MOST_CLASSES, JointSketch, JointSketchSettings
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, CodecRequest, Manifest, RatePoint

DEFAULT_LOSE = 0.02
_TABLE = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""What the rows of the table lose, where bytes reach so far."""
_FEW, _MANY, _MANY_BELOW = 5, 10, 0.03
"""K where much is lost anyway, and where little is."""
# Bytes of a place and a residual where the sketch is coarse.
_TOP_BYTES = 1.1
_VALUE_STEP, _VALUE_PART = 0.08, 0.08
_STEPS, _SMALLEST = 180, 1e-4
# Samples that the search for a step looks at.
_SEARCHED = 96


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
                f"--codec joint-sketch is for up to {MOST_CLASSES} classes, and the teacher has {classes}: use "
                "--codec class-sketch"
            )

    def asked(self, classes: int, request: CodecRequest) -> CodecRequest:
        """All of it."""
        return request

    def groups(self, manifest: Manifest) -> list[tuple[int, range]]:
        """Whole samples, in all views of the first tile."""
        views = manifest.tiling.views
        rows = group_rows(manifest.data.samples, views, manifest.classes, manifest.views.seed)
        return [(row, range(views)) for row in rows]

    def provisional(self, classes: int, request: CodecRequest) -> CodecSettings:
        """A sketch whose numbers are to come."""
        top_k = request.top_k or min(_FEW, classes - 1)
        return JointSketchSettings(
            top_k=top_k,
            value_step=request.value_step or _VALUE_STEP,
            rank=1,
            step=request.tail_step or 1.0,
            finer=0,
            dead_zone=0.0,
            sample_values=((1, 3),),
            view_values=((2 + 2 * top_k, 3),),
        )

    def fit(self, logits: NDArray[np.float32], request: CodecRequest, views: int = 1) -> Calibration:
        """Choose the step and fit the sketch; masked classes are left out of it all."""
        masks = Masks.of(logits)
        self.check(masks.left_count, request)
        left = masks.left(logits)
        return masks.widened(_Search(left.reshape(-1, views, left.shape[1]), request).calibration())


@dataclass(frozen=True)
class _Search:
    """The search for a step on logits [samples, views, C]."""

    logits: NDArray[np.float32]
    request: CodecRequest
    _found: dict[tuple[int, int], Quantised] = field(default_factory=dict)

    @cached_property
    def _is_fitting(self) -> NDArray[np.bool_]:
        fitting = np.arange(len(self.logits)) % 2 == 0
        return fitting if len(self.logits) > 1 else np.ones(1, bool)

    @cached_property
    def held(self) -> NDArray[np.float32]:
        """Samples that fit no basis; of a single sample, itself."""
        held = self.logits[~self._is_fitting]
        return held if len(held) else self.logits

    @cached_property
    def spread(self) -> Spread:
        """Of the held samples, in the basis of the others."""
        return Spread.of(self.logits[self._is_fitting], self.held, self.request.tail_rank)

    @cached_property
    def _searched(self) -> Spread:
        return self.spread.first(_SEARCHED)

    @cached_property
    def std(self) -> float:
        """Standard deviation of the logits around their class means."""
        return float(np.sqrt(self.spread.variance / self.logits.shape[2]))

    def calibration(self) -> Calibration:
        """The step that was asked for, in a table of others."""
        chosen = self._chosen()
        point = self._point(chosen)
        points = {point, *map(self._point, self._table(chosen))}
        table = tuple(sorted(points, key=lambda row: row.bytes_per_view))
        codec = self._final(chosen)
        lost = self.spread.variance * chosen.lost / self.logits.shape[2]
        section = CalibrationSection(
            pairs=self.logits.shape[0] * self.logits.shape[1],
            logit_std=self.std,
            tail_error=float(np.sqrt(lost)),
            table=table,
            chosen=table.index(point),
        )
        return Calibration(codec, section, tuple(missed_budget(point.bytes_per_view, self.request)))

    def _chosen(self) -> Quantised:
        """What was asked for."""
        if self.request.tail_step is not None:
            return self.spread.quantised(self.request.tail_step, self._finer[-1])
        if self.request.lose is None and self.request.bytes_per_view is not None:
            budget = self.request.bytes_per_view
            within = [
                self._limit(finer, lambda found: self._bytes(found) > budget)[1] for finer in self._finer
            ]
            return min(within, key=lambda found: found.lost)
        return self._losing(self.request.lose or DEFAULT_LOSE)

    def _losing(self, lose: float) -> Quantised:
        """The fewest bytes that lose no more than this."""
        found = [self._limit(finer, lambda found: found.lost <= lose)[0] for finer in self._finer]
        return min(found, key=self._bytes)

    def _limit(self, finer: int, holds: Callable[[Quantised], bool]) -> tuple[Quantised, Quantised]:
        """The largest step of which something holds that holds of all smaller ones, and the next larger one."""
        low, high = 0, _STEPS - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(self._seen(middle, finer)) else (low, middle)
        return self.spread.quantised(self._steps[low], finer), self.spread.quantised(self._steps[high], finer)

    def _seen(self, index: int, finer: int) -> Quantised:
        if (index, finer) not in self._found:
            self._found[index, finer] = self._searched.quantised(self._steps[index], finer)
        return self._found[index, finer]

    def _table(self, chosen: Quantised) -> list[Quantised]:
        """Steps that lose round numbers, up to four times the bytes of the chosen one."""
        most = 4 * self._bytes(chosen) + 64
        rows = []
        for lose in _TABLE:
            rows.append(self._losing(lose))
            if self._bytes(rows[-1]) > most:
                break
        return rows

    @cached_property
    def _steps(self) -> list[float]:
        """Rising, three significant digits each, so that a last-bit difference in the logits changes none."""
        largest = 2 * max(float(np.sqrt(self.spread.variance)), 1e-6)
        return [float(f"{step:.3g}") for step in np.geomspace(largest * _SMALLEST, largest, _STEPS)]

    @cached_property
    def _finer(self) -> tuple[int, ...]:
        """How much finer the shared step may be: about the square root of the number of views."""
        views = self.logits.shape[1]
        if views == 1:
            return (0,)
        usual = round(float(np.log2(views)) / 2)
        return tuple(sorted({max(0, usual - 1), usual}))

    def _bytes(self, found: Quantised) -> float:
        return found.sketch_bytes + _TOP_BYTES * self._top_k(found)

    def _top_k(self, found: Quantised) -> int:
        few = _FEW if found.lost > _MANY_BELOW else _MANY
        return self.request.top_k or min(few, self.logits.shape[2] - 1)

    @property
    def _value_step(self) -> float:
        return self.request.value_step or float(f"{min(_VALUE_STEP, _VALUE_PART * self.std):.3g}")

    def _codec(self, found: Quantised) -> JointSketch:
        return codec_of(self.spread, found, self.held, self._top_k(found), self._value_step)

    def _point(self, found: Quantised) -> RatePoint:
        codec = self._codec(found)
        settings = codec.settings
        setting = settings.top_k, settings.rank, settings.step, settings.value_step
        return measured_point(codec, self._measured, setting, found.views)

    @cached_property
    def _measured(self) -> Held:
        return Held.of(self.held.reshape(-1, self.held.shape[2]), self.held.shape[1])

    def _final(self, found: Quantised) -> JointSketch:
        """The codec with mean and basis of all samples."""
        codec = self._codec(found)
        pairs = self.logits.reshape(-1, self.logits.shape[2])
        mean = pairs.mean(axis=0, dtype=np.float64)
        basis = stored_basis(principal_components(pairs - mean, codec.settings.rank))
        arrays = {
            **codec.arrays,
            "mean": mean.astype(np.float32),
            "basis": np.rint(basis * 2**BASIS_BITS).astype(np.int16),
        }
        return JointSketch(codec.settings, codec.width, arrays)
