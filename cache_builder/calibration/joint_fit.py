"""Fitting codec ``joint-sketch`` to logits: basis, ranks, digits, and the tables of the entropy coder.

Some samples fit the basis, the others say what a step costs and loses; the tables of the entropy coder are of
those others too, because a basis fits its own samples too well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.components import Pairs, principal_axes
from cache_builder.format.codecs.digits import WIDE
from cache_builder.format.codecs.entropy import PLACES, REACH, EntropyCoder, frequencies, places_of
from cache_builder.format.codecs.fields import stored_first
from cache_builder.format.codecs.joint_sketch import (
    BASIS_BITS,
    FEW_VALUES,
    VALUE_LIMIT,
    JointSketch,
    JointSketchSettings,
    Runs,
    rounded,
)

DEAD_ZONE = 0.15
MOST_RANK = 768
# An integer is cut off in at most this part of the records.
_CUT_OFF = 3e-4
# Room beyond the largest of the calibration's integers, where there are many values anyway: more where few
# records were seen. On disk it costs nothing, as what does not occur has no part in the tables.
_MARGIN, _MOST_ROOM, _SEEN = 1.3, 4.0, 3000
# Numbers of values that fill a byte well.
_VALUES = (3, 5, 7, 9, 11, 15, 21, 31, 43, 63, 85, 127, 255, WIDE)
# A coefficient that is zero in all but this part of the records is left out: it costs bytes of the record in
# memory, and hardly any on disk.
_NONZERO = 2e-2
# So many observations of a Laplace distribution are added to those of a table.
_PRIOR = 8.0
_LARGEST_BITS = 12


@dataclass(frozen=True)
class Spread:
    """Logits in a basis: what every step has in common."""

    mean: NDArray[np.float64]
    """[C]."""
    basis: NDArray[np.float32]
    """[r, C], in the steps that the store has."""
    coef: NDArray[np.float32]
    """Coefficients [samples, views, r] of samples that fitted nothing."""
    beyond: float
    """Mean square of what the basis leaves of a view's logits, summed over classes."""
    variance: float
    """Mean square distance of a view's logits from the mean, summed over classes."""

    @classmethod
    def of(cls, pairs: Pairs, held: NDArray[np.float32], most_rank: int | None = None) -> Spread:
        """``pairs`` fit mean and basis; ``held`` [samples, views, C] are measured."""
        classes, mean = pairs.classes, pairs.mean()
        rank = max(1, min(most_rank or MOST_RANK, classes - 1, len(pairs) - 1))
        basis = stored_basis(principal_axes(pairs, mean, rank))
        parts, variance, left = [], 0.0, 0.0
        for block in Pairs.all(held.reshape(-1, classes)).blocks(mean):
            parts.append(block.astype(np.float32) @ basis.T)
            variance += float(np.square(block).sum())
            # Not from the coefficients' squares: a stored basis is orthonormal to four digits only.
            left += float(np.square(block - parts[-1] @ basis).sum())
        coef = np.concatenate(parts)
        by_view = coef.reshape(*held.shape[:2], -1)
        return cls(mean, basis, by_view, left / len(coef), variance / len(coef))

    def some(self, samples: int) -> Spread:
        """The same of about so many of the samples, spread over them all."""
        coef = self.coef[:: max(1, len(self.coef) // samples)]
        used = float(np.square(coef, dtype=np.float64).sum() / (coef.shape[0] * coef.shape[1]))
        return replace(self, coef=coef, variance=used + self.beyond)

    def truncated(self, rank: int) -> Spread:
        """The same with the first rows of the basis alone."""
        beyond = self.coef[..., rank:]
        lost = float(np.square(beyond, dtype=np.float64).sum() / (beyond.shape[0] * beyond.shape[1]))
        return replace(self, basis=self.basis[:rank], coef=self.coef[..., :rank], beyond=self.beyond + lost)

    def quantised(self, step: float, finer: int) -> Quantised:
        """The integers of these samples at a step."""
        fine = np.float32(step / 2**finer)
        views = self.coef.shape[1]
        shared = np.zeros((len(self.coef), 1), np.int32)
        left = self.coef.copy()
        if views > 1:
            shared = _worthwhile(rounded(self.coef.mean(axis=1), float(fine), DEAD_ZONE))
            left[..., : shared.shape[1]] -= (shared * fine)[:, None]
        own = _worthwhile(rounded(left, step, DEAD_ZONE).reshape(-1, left.shape[2]))
        left.reshape(-1, left.shape[2])[:, : own.shape[1]] -= own * np.float32(step)
        lost = float(np.square(left, dtype=np.float64).sum()) / (self.coef.shape[0] * views)
        share = (lost + self.beyond) / self.variance if self.variance else 0.0
        return Quantised(step, finer, views, shared, own, share)

    @property
    def unreachable(self) -> float:
        """What is lost of the logits' variance by the finest step."""
        return self.beyond / self.variance if self.variance else 0.0


def stored_basis(components: NDArray[np.float64]) -> NDArray[np.float32]:
    """A basis in the steps of the store, as floats."""
    return np.asarray(np.rint(components * 2**BASIS_BITS) / 2**BASIS_BITS, np.float32)


@dataclass(frozen=True)
class Quantised:
    """The integers of some samples at a step, and what the sketch loses."""

    step: float
    finer: int
    views: int
    shared: NDArray[np.int32]
    """[samples, r]."""
    own: NDArray[np.int32]
    """[samples * views, r]."""
    lost: float
    """Of the logits' variance."""

    @property
    def sample_rank(self) -> int:
        """How many coefficients are shared; at least one."""
        return int(self.shared.shape[1])

    @property
    def view_rank(self) -> int:
        """How many coefficients a view has of its own; at least one."""
        return int(self.own.shape[1])

    @cached_property
    def sketch_bytes(self) -> float:
        """What the coefficients of a view take, its part of the shared ones included."""
        return _bytes(self.shared) / self.views + _bytes(self.own)


def _worthwhile(steps: NDArray[np.float32]) -> NDArray[np.int32]:
    """The coefficients [n, r] in whole steps up to the last that is worth storing; at least one."""
    used = np.flatnonzero((steps != 0).mean(axis=0) > _NONZERO)
    return steps[:, : int(used.max(initial=0)) + 1].astype(np.int32)


def _bytes(integers: NDArray[np.integer[Any]]) -> float:
    """Bytes of a row [n, s] by tables of their own."""
    low, tables = tables_of(integers)
    return EntropyCoder(tables, low).size(integers) / len(integers)


def tables_of(integers: NDArray[np.integer[Any]]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Low bits [s] and tables [s, PLACES] for integers [n, s]: as often as seen, smoothed."""
    reach = np.quantile(np.abs(integers), 0.999, axis=0, method="higher")
    low = np.ceil(np.log2(np.maximum(1, reach) / REACH)).clip(0, _LARGEST_BITS).astype(np.uint8)
    place = places_of(integers.astype(np.int64), low)
    columns = integers.shape[1]
    flat = place + np.arange(columns) * PLACES
    counts = np.bincount(flat.ravel(), minlength=columns * PLACES).reshape(columns, PLACES).astype(np.float64)
    return low, frequencies(counts + _PRIOR * _laplace(integers >> low.astype(np.int32)))


def _laplace(integers: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Discrete Laplace distributions [s, PLACES] as wide as the integers [n, s], with a little escape."""
    n = len(integers)
    mean = (np.abs(integers).sum(axis=0) + 0.1) / (n + 1)
    # E|q| of a two-sided geometric distribution is 2 t / (1 - t^2).
    ratio = (np.sqrt(1 + mean**2) - 1) / mean
    places = np.abs(np.arange(-REACH, REACH + 1))
    found = ratio[:, None] ** places
    escape = 1e-5 * found.sum(axis=1, keepdims=True)
    found = np.concatenate([found, escape], axis=1)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def room(records: int) -> float:
    """How much larger the largest number of many records may be than that of so few."""
    # The square, because the largest coefficients of teachers have heavier tails than exponential ones.
    return min(_MOST_ROOM, max(1.0, float(np.log(_SEEN) / np.log(max(2, records))) ** 2))


def runs_of(integers: NDArray[np.integer[Any]]) -> Runs:
    """How many values each of s integers [n, s] may take, as runs of equal numbers."""
    largest = np.quantile(np.abs(integers), 1 - _CUT_OFF, axis=0, method="higher")
    roomy = np.ceil(largest * _MARGIN * room(len(integers)))
    wanted = np.where(largest <= FEW_VALUES, largest, roomy) * 2 + 1
    runs: list[tuple[int, int]] = []
    for values in wanted.tolist():
        allowed = next((number for number in _VALUES if number >= values), WIDE)
        if runs and runs[-1][1] == allowed:
            runs[-1] = runs[-1][0] + 1, allowed
        else:
            runs.append((1, allowed))
    return tuple(runs)


def codec_of(
    spread: Spread,
    quantised: Quantised,
    held: NDArray[np.float32],
    top_k: int,
    value_step: Callable[[float], float],
) -> tuple[JointSketch, float]:
    """The codec of a step, and how far its sketch may be from the K largest logits.

    ``held`` [samples, views, C]: of the logits that were quantised. ``value_step``: the step of the K values
    for such a distance.
    """
    sketch = _with_tables(spread, quantised, top_k, 1.0)
    flat = held.reshape(-1, held.shape[2])
    found = sketch.integers(sketch.encode(flat, held.shape[1]))
    index = stored_first(flat, top_k)
    top = np.take_along_axis(flat, index, axis=1)
    near = np.take_along_axis(sketch.sketched(found.shared, found.own), index, axis=1)
    farthest = room(len(flat)) * float(np.abs(top - sketch.in_logits(near)).max())
    step = value_step(farthest)
    residuals = sketch.changed(value_step=step).residuals(top, near)
    tail = np.concatenate([found.places, residuals], axis=1)
    return _with_tables(spread, quantised, top_k, step, tail), farthest


def _with_tables(
    spread: Spread,
    quantised: Quantised,
    top_k: int,
    value_step: float,
    tail: NDArray[np.int64] | None = None,
) -> JointSketch:
    """The codec, with tables for places and residuals [n, 2 K] where they are known by now."""
    shared, own = quantised.shared, quantised.own
    known = np.zeros((1, 2 * top_k), np.int64) if tail is None else tail
    validity = np.zeros((len(own), 1), np.int64)
    classes = len(spread.mean)
    place_values = 255 if classes <= 128 else WIDE
    runs = ((1, 3), *runs_of(own), (top_k, place_values), (top_k, 2 * VALUE_LIMIT + 1))
    rank = max(quantised.sample_rank, quantised.view_rank)
    settings = JointSketchSettings(
        top_k=top_k,
        value_step=value_step,
        rank=rank,
        step=quantised.step,
        finer=quantised.finer,
        dead_zone=DEAD_ZONE,
        sample_values=runs_of(shared),
        view_values=runs,
    )
    sample_low, sample_tables = tables_of(shared)
    view_tables = [tables_of(part) for part in (validity, own, known)]
    arrays = {
        "mean": spread.mean.astype(np.float32),
        "basis": np.rint(spread.basis[:rank] * 2**BASIS_BITS),
        "sample_tables": sample_tables,
        "sample_low": sample_low,
        "view_tables": np.concatenate([tables for _, tables in view_tables]),
        "view_low": np.concatenate([low for low, _ in view_tables]),
    }
    return JointSketch(settings, classes, arrays)
