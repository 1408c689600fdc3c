"""Calibrator of codec ``class-sketch``.

The settings are chosen on a rate-distortion table that is fitted on one half of the pairs and measured on the
other; the sketch that the cache uses is then fitted to all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.contract import (
    ALONE,
    Calibration,
    Calibrator,
    Scope,
    few_pairs,
    least_spacing,
    missed_budget,
    refuse_small,
)
from cache_builder.calibration.fidelity import Held, measure
from cache_builder.calibration.masks import Masks
from cache_builder.calibration.sketch import Fitted, coding_for, fit_sketch
from cache_builder.format.codecs import CodecSettings
from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.sketched import index_bits
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, CodecRequest, RatePoint

DEFAULT_BYTES_PER_VIEW = 64.0

_RANKS = (16, 32, 48, 64, 96, 128, 256)
_TOP_KS = (1, 3, 5, 10, 15, 20)
_FIRST_TOP_K, _SMALL_TOP_K = 10, 3
# Quantisation noise of the tail as a part of the logits' spread, were the rank 64.
_NOISES = (0.01, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.22, 0.32)
_STEP_RANK = 64
# Steps of the K values, in logits: at temperature 1 a step moves a probability by so much of itself.
_VALUE_STEPS = (0.02, 0.04, 0.08)
_FIRST_VALUE_STEP = 0.04
# ... but a teacher of small logits needs small ones.
_VALUE_PART = 0.05
# ... one of large logits large ones: residuals of so many spreads fit int16.
_REACH, _INT16_MAX = 10.0, 32767
# Budgets in bytes at which settings are refined, up to the one asked for: each starts from what the smaller
# ones have measured, so that a larger budget chooses among all that a smaller one does.
_RUNGS = tuple(round(8 * 1.2**step, 1) for step in range(40))


class SketchCalibrator(Calibrator):
    """K classes one by one, a sketch of the others around what is usual for the best class."""

    def check(self, classes: int, request: CodecRequest) -> None:
        """A K that leaves nothing to sketch."""
        if request.top_k is not None and request.top_k >= classes:
            raise ConfigError(
                f"--codec class-sketch stores some classes one by one and sketches the others, and --top-k "
                f"{request.top_k} leaves none of {classes}: use a smaller --top-k, or --codec topk-tail"
            )
        if request.lose is not None:
            raise ConfigError(
                "--codec class-sketch is chosen by its size: use --bytes-per-view instead of --lose"
            )

    def asked(self, classes: int, request: CodecRequest) -> CodecRequest:
        """All of it."""
        return request

    def provisional(self, classes: int, request: CodecRequest) -> CodecSettings:
        """A sketch whose numbers are to come."""
        return ClassSketchSettings.model_validate(
            {
                "top_k": request.top_k or min(_FIRST_TOP_K, classes - 1),
                "index_bits": index_bits(classes),
                "value_bits": 8,
                "value_step": request.value_step or _FIRST_VALUE_STEP,
                "tail_rank": request.tail_rank or 1,
                "tail_wide": 0,
                "tail_bytes": 0,
                "tail_step": request.tail_step or 1.0,
            }
        )

    def fit(self, logits: NDArray[np.float32], request: CodecRequest, scope: Scope = ALONE) -> Calibration:
        """Choose the settings and fit the sketch; masked classes are left out of it all."""
        masks = Masks.of(logits)
        self.check(masks.left_count, request)
        return masks.widened(_fit(masks.left(logits), request), index_coding=coding_for(logits.shape[1]))


def _fit(logits: NDArray[np.float32], request: CodecRequest) -> Calibration:
    std = float(np.sqrt(np.square(logits - logits.mean(axis=0, dtype=np.float64)).mean()))
    _check_steps(logits, request, std)
    table, half, held = _table(logits, request, std)
    chosen = best(table, request.bytes_per_view or DEFAULT_BYTES_PER_VIEW)
    point = table[chosen]
    everything = Fitted.of(logits, point.tail_rank, point.top_k)
    setting = point.top_k, point.tail_rank, point.tail_step, point.value_step
    codec = fit_sketch(everything, *setting)
    # Nothing is held out of everything: the half tells what residuals of other logits need.
    needed = fit_sketch(half, *setting, held.logits).settings.value_bits
    codec = codec.changed(value_bits=max(codec.settings.value_bits, needed))
    lost = np.square(codec.decode(codec.encode(logits)) - logits, dtype=np.float64)
    section = CalibrationSection(
        pairs=len(logits),
        logit_std=std,
        tail_error=float(np.sqrt(lost.mean())),
        table=tuple(table),
        chosen=chosen,
    )
    told = (*missed_budget(point.bytes_per_view, request), *few_pairs(*logits.shape))
    return Calibration(codec, section, told)


def _check_steps(logits: NDArray[np.float32], request: CodecRequest, std: float) -> None:
    """Refuse steps with which integers of 16 bits cannot reach this teacher's logits."""
    farthest = float(np.linalg.norm(logits - logits.mean(axis=0, dtype=np.float64), axis=1).max())
    least = {"value_step": least_value_step(logits, std), "tail_step": farthest / _INT16_MAX}
    for field, value in least.items():
        refuse_small(request, field, value, bits=16)


def best(table: list[RatePoint], budget: float) -> int:
    """The row with the largest gradient cosine within the budget; the smallest row where none is within."""
    within = [index for index, point in enumerate(table) if point.bytes_per_view <= budget]
    if not within:
        return min(range(len(table)), key=lambda index: table[index].bytes_per_view)
    return min(within, key=lambda index: (1 - table[index].gradient_cosine, table[index].bytes_per_view))


def first_half(pairs: int) -> NDArray[np.bool_]:
    """Which of the pairs the table's sketches are fitted to: two by two, the others measure.

    Views alternate from pair to pair, and strong ones may be at odd numbers: each half needs both kinds.
    """
    index = np.arange(pairs)
    chosen: NDArray[np.bool_] = (index if pairs < 4 else index // 2) % 2 == 0
    return chosen


Setting = tuple[int, int, float, float]
"""K, rank, step of the coefficients, step of the values."""


def _table(
    logits: NDArray[np.float32], request: CodecRequest, std: float
) -> tuple[list[RatePoint], Fitted, Held]:
    """First ranks and steps at one K, then other K and value steps around the best of them.

    Also the half of the pairs that it was fitted to, and the one it was measured on.
    """
    classes, budget = logits.shape[1], request.bytes_per_view or DEFAULT_BYTES_PER_VIEW
    ranks = [request.tail_rank] if request.tail_rank else _possible_ranks(len(logits) // 2, classes)
    steps = [request.tail_step] if request.tail_step else tail_steps(std, classes)
    top_ks = [request.top_k] if request.top_k else [k for k in _TOP_KS if k < classes]
    value_steps = [request.value_step] if request.value_step else value_steps_for(logits, std)
    fitting = first_half(len(logits))
    fitted = Fitted.of(logits[fitting], max(ranks), max(top_ks))
    held = Held.of(logits[~fitting])
    first_ks = [k for k in (_SMALL_TOP_K, _FIRST_TOP_K) if k in top_ks] or top_ks[-1:]
    middle = value_steps[len(value_steps) // 2]
    points: dict[Setting, RatePoint] = {}

    def measured(settings: Iterable[Setting]) -> None:
        for setting in settings:
            if setting not in points:
                points[setting] = measure(fitted, held, *setting)

    for k, rank in product(first_ks, ranks):
        # Finer steps only take more bytes: what follows one beyond the budget need not be looked at.
        for step in sorted(steps, reverse=True):
            measured([(k, rank, step, middle)])
            if points[k, rank, step, middle].bytes_per_view > budget:
                break
    for rung in [rung for rung in _RUNGS if rung <= budget]:
        _, rank, step, _ = _setting(points, rung)
        measured((k, rank, step, middle) for k in top_ks)
        k, rank, step, _ = _setting(points, rung)
        measured((k, rank, step, value) for value in value_steps)
    table = sorted(points.values(), key=lambda point: (point.bytes_per_view, point.tail_rank))
    return table, fitted, held


def _setting(points: dict[Setting, RatePoint], budget: float) -> Setting:
    """The best of the measured settings within a budget."""
    return list(points)[best(list(points.values()), budget)]


def _possible_ranks(pairs: int, classes: int) -> list[int]:
    """The ranks worth trying: below the number of classes, and spanned by the pairs."""
    most = max(1, min(classes - 1, pairs - 1))
    return [rank for rank in _RANKS if rank < most] or [most]


def tail_steps(std: float, classes: int) -> list[float]:
    """Steps of the coefficients: uniform noise of step / sqrt(12) in r of C directions.

    Rounded to three significant digits, so that a last-bit difference in the logits cannot change them.
    """
    unit = std * math.sqrt(12 * classes / _STEP_RANK)
    return [float(f"{max(noise * unit, 1e-6):.3g}") for noise in _NOISES]


def least_value_step(logits: NDArray[np.float32], std: float) -> float:
    """Below it residuals do not fit int16, or float32 cannot tell neighbours apart."""
    return max(_REACH * std / _INT16_MAX, least_spacing(logits.mean(axis=0, dtype=np.float64)))


def value_steps_for(logits: NDArray[np.float32], std: float) -> list[float]:
    """Steps of the K values: small for small logits, never below what int16 and float32 can tell."""
    factor = min(1.0, _VALUE_PART * std / _FIRST_VALUE_STEP)
    least = max(1e-6, least_value_step(logits, std))
    return sorted({float(f"{max(step * factor, least):.3g}") for step in _VALUE_STEPS})
