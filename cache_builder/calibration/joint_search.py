"""The search for a joint sketch: the step, which says what is stored, how finely, and what is lost.

What a step loses and costs is known from the integers that it gives, without encoding a record, so that a
step is found by bisection. A few steps around it, by what they lose, are the table that people see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.components import Pairs, principal_axes
from cache_builder.calibration.contract import (
    Calibration,
    Scope,
    few_pairs,
    least_spacing,
    missed_budget,
    refuse_small,
)
from cache_builder.calibration.fidelity import Held, measured_point
from cache_builder.calibration.joint_fit import Quantised, Spread, codec_of, stored_basis
from cache_builder.calibration.pairs import most_joint_pairs
from cache_builder.console.limits import DEFAULT_LOSE, FEW, allowed_loss, limit_in_words
from cache_builder.format.codecs.joint_sketch import BASIS_BITS, VALUE_LIMIT, JointSketch
from cache_builder.format.manifest import CalibrationSection, CodecRequest, RatePoint

_TABLE = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""What the rows of the table lose, where bytes reach so far."""
# K where little is lost; FEW where more is.
_MANY, _MANY_BELOW = 10, 0.03
# Bytes of a place and a residual where the sketch is coarse.
_TOP_BYTES = 1.1
VALUE_STEP, _VALUE_PART, _LEAST_VALUE_STEP = 0.08, 0.08, 1e-6
# Other records' residuals may be larger by this factor than the largest that calibration saw.
_ROOM = 1.5
# Integers of 16 bits hold coefficients up to this many steps.
_FARTHEST = 25000
# Of fewer samples none is held out: a basis of so few says nothing of the others.
_LEAST_PARTED = 8
_STEPS, _SMALLEST = 180, 1e-4
_TRIES, _NEAR = 4, 0.97
# Steps that are remembered while one is searched for: their integers are large.
_REMEMBERED = 24
# An entry of the basis on disk, and what of a record it may take without being looked at.
_ENTRY_BYTES, _NEGLIGIBLE = 1.3, 0.5
_RANKS = (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 4, 2, 1)
# Multiples of the golden ratio lie evenly between whole numbers.
_GOLDEN = (5**0.5 - 1) / 2
# What a row of the table may lose more than it is named for before there is no finer one.
_MISSED = 1.1
# Samples that are measured, and those of them that the search for a step looks at.
_MEASURED, _SEARCHED = 384, 96
# ... and of few views that many pairs.
_MEASURED_PAIRS = 1024
# Samples whose places and residuals make the tables of these, and logits of theirs at once.
_TAIL_SAMPLES, _TAIL_VALUES = 160, 2**23
# The spread of logits, as a share of the largest, that rounding in the teacher gives.
_ROUNDED = 1e-5
# Codecs that are remembered: each has a basis of its own.
_CODECS = 2


@dataclass(frozen=True)
class Choice:
    """A step for both parts, in a basis of some rank."""

    rank: int
    finer: int
    quantised: Quantised


@dataclass(frozen=True)
class Search:
    """The search for a step on logits [samples, views, C]."""

    logits: NDArray[np.float32]
    request: CodecRequest
    scope: Scope
    _found: dict[tuple[int, int, int], Quantised] = field(default_factory=dict)
    _parts: dict[tuple[int, bool], Spread] = field(default_factory=dict)
    _codecs: dict[tuple[int, int, float], tuple[JointSketch, float]] = field(default_factory=dict)

    @property
    def _is_whole(self) -> bool:
        return self.scope.is_whole or len(self.logits) < _LEAST_PARTED

    @cached_property
    def _is_held(self) -> NDArray[np.bool_]:
        """Samples [samples] that fit no basis and are measured: spread over all, at most half of them."""
        held = np.zeros(len(self.logits), bool)
        count = min(len(held) // 2, max(_MEASURED, _MEASURED_PAIRS // self.logits.shape[1]))
        held[np.linspace(0, len(held) - 1, count).astype(int)] = True
        return held

    @cached_property
    def held(self) -> NDArray[np.float32]:
        """What is measured: samples that fit no basis, or, of a whole cache, some; the first ones spread."""
        rows = np.arange(len(self.logits)) if self._is_whole else np.flatnonzero(self._is_held)
        order = np.argsort(np.arange(len(rows)) * _GOLDEN % 1, kind="stable")
        most = max(_MEASURED, _MEASURED_PAIRS // self.logits.shape[1])
        return self.logits[rows[order[:most]]]

    @cached_property
    def spread(self) -> Spread:
        """Of the held samples, in the basis of the others."""
        return Spread.of(self._fitting, self.held, self.request.tail_rank)

    @cached_property
    def _fitting(self) -> Pairs:
        is_fitting = np.ones(len(self.logits), bool) if self._is_whole else ~self._is_held
        return Pairs(self._pairs, np.repeat(is_fitting, self.logits.shape[1]))

    @property
    def _pairs(self) -> NDArray[np.float32]:
        return self.logits.reshape(-1, self.logits.shape[2])

    def _spread(self, rank: int, is_searched: bool = False) -> Spread:
        """The spread in a part of the basis; of some of the samples where a step is searched for."""
        if (rank, is_searched) not in self._parts:
            whole = self.spread.some(_SEARCHED) if is_searched else self.spread
            self._parts[rank, is_searched] = whole.truncated(rank)
        return self._parts[rank, is_searched]

    @cached_property
    def std(self) -> float:
        """Standard deviation of the logits around their class means."""
        return float(np.sqrt(self.spread.variance / self.logits.shape[2]))

    @property
    def _is_rounding(self) -> bool:
        """Whether the logits differ by no more than rounding: the teacher answers every picture alike."""
        return self.std <= _ROUNDED * float(np.abs(self.held).max())

    def calibration(self) -> Calibration:
        """The step that was asked for, in a table of others."""
        most = len(_TABLE) + 1
        self.scope.advance(0, most)
        self._check_coefficients()
        chosen = self._chosen()
        farthest = self._codec(chosen)[1]
        refuse_small(self.request, "value_step", self._least_value_step(farthest), bits=8)
        measured = [(self._point(chosen), chosen)]
        for row in self._table(chosen):
            self.scope.advance(len(measured), most)
            measured.append((self._point(row), row))
        self.scope.advance(most, most)
        if self.request.tail_step is None:
            measured.insert(0, _not_worse(measured))
        point, chosen = measured[0]
        points = {row for row, _ in measured}
        table = tuple(sorted(_monotone(points, point), key=lambda row: row.bytes_per_view))
        codec = self._final(self._codec(chosen)[0])
        section = CalibrationSection(
            pairs=self.logits.shape[0] * self.logits.shape[1],
            logit_std=0.0 if self._is_rounding else self.std,
            tail_error=point.logit_error,
            table=table,
            chosen=table.index(point),
        )
        return Calibration(codec, section, tuple(self._told(point, section.is_alike)))

    def _final(self, codec: JointSketch) -> JointSketch:
        """The codec with mean and basis of all samples: 3 % fewer bytes than of a part (Lite0)."""
        rank = codec.settings.rank
        if self._is_whole or self._fitting.are_enough(rank):
            return codec
        pairs = Pairs.all(self._pairs)
        mean = pairs.mean()
        basis = stored_basis(principal_axes(pairs, mean, rank)) * 2**BASIS_BITS
        return JointSketch(codec.settings, codec.width, {**codec.arrays, "mean": mean, "basis": basis})

    def _told(self, point: RatePoint, is_alike: bool) -> Iterator[str]:
        yield from missed_budget(point.bytes_per_view, self.request)
        allowed, lost = allowed_loss(self.request), point.lost or 0.0
        if allowed is not None and lost > _MISSED * allowed and not is_alike:
            asked = limit_in_words(self.request)
            yield f"warning: {asked} is missed: the records lose {lost:.2g} of the logits' variance"
        if not self.scope.is_whole:
            samples, views, classes = self.logits.shape
            # Whole samples: where memory bounds them, some views fewer than would fit.
            yield from few_pairs(samples * views, classes, most_joint_pairs(classes) - views)

    def _check_coefficients(self) -> None:
        """Refuse a step with which integers of 16 bits do not reach this teacher's coefficients."""
        farthest = float(np.linalg.norm(self.spread.coef, axis=2).max(initial=0.0))
        refuse_small(self.request, "tail_step", farthest * 2 ** self._finer[-1] / _FARTHEST, bits=16)

    def _chosen(self) -> Choice:
        """What was asked for."""
        if self.request.tail_step is not None:
            rank, finer = len(self.spread.basis), self._finer[-1]
            return Choice(rank, finer, self._spread(rank).quantised(self.request.tail_step, finer))
        if self.request.lose is None and self.request.bytes_per_view is not None:
            return self._within(self.request.bytes_per_view)
        return self._losing(self.request.lose or DEFAULT_LOSE)

    def _within(self, budget: float) -> Choice:
        """The least loss within a budget. What places and residuals take is only known of a whole record."""
        top_bytes = _TOP_BYTES
        for _ in range(_TRIES):
            chosen = self._least(budget, top_bytes)
            taken = self._point(chosen).bytes_per_view
            top_bytes += (taken - self._bytes(chosen.quantised, top_bytes)) / self._top_k(chosen.quantised)
            if budget * _NEAR <= taken <= budget:
                break
        return chosen

    def _least(self, budget: float, top_bytes: float) -> Choice:
        """The least loss of records that take no more, where each of the K classes takes so many bytes."""
        found = [
            self._choice(
                self._ranks[0], finer, lambda seen: self._bytes(seen, top_bytes) <= budget, smallest=True
            )
            for finer in self._finer
        ]
        return min(found, key=lambda choice: choice.quantised.lost)

    def _losing(self, lose: float) -> Choice:
        """The fewest bytes that lose no more than this, a cache's part of the basis included."""
        best: Choice | None = None
        for rank in self._ranks:
            # No step makes good what the basis leaves out: beyond that a finer one only takes more bytes.
            most = max(lose, _MISSED * self._spread(rank, is_searched=True).unreachable)
            found = [self._choice(rank, finer, _losing_at_most(most)) for finer in self._finer]
            choice = min(found, key=self._whole_bytes)
            if best is not None and (
                choice.quantised.lost > lose or self._whole_bytes(choice) >= self._whole_bytes(best)
            ):
                break
            best = choice
        assert best is not None
        return best

    def _choice(
        self, rank: int, finer: int, holds: Callable[[Quantised], bool], smallest: bool = False
    ) -> Choice:
        """The largest step of which something holds that holds of all smaller ones; or the other way."""
        low, high = 0, _STEPS - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (low, middle) if holds(self._seen(middle, rank, finer)) == smallest else (middle, high)
            )
        index, direction = (high, 1) if smallest else (low, -1)
        found = self._spread(rank).quantised(self._steps[index], finer)
        # Some of the samples were searched; of all of them it may hold a little later.
        for _ in range(_TRIES):
            if holds(found) or not 0 < index < _STEPS - 1:
                break
            index += direction
            found = self._spread(rank).quantised(self._steps[index], finer)
        return Choice(rank, finer, found)

    def _seen(self, index: int, rank: int, finer: int) -> Quantised:
        key = index, rank, finer
        if key not in self._found:
            while len(self._found) >= _REMEMBERED:
                self._found.pop(next(iter(self._found)))
            self._found[key] = self._spread(rank, is_searched=True).quantised(self._steps[index], finer)
        return self._found[key]

    def _table(self, chosen: Choice) -> Iterator[Choice]:
        """Steps that lose round numbers, up to four times the bytes of the chosen one."""
        most = 4 * self._bytes(chosen.quantised) + 64
        for lose in _TABLE:
            found = self._losing(lose)
            yield found
            if self._bytes(found.quantised) > most or found.quantised.lost > _MISSED * lose:
                break

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

    @cached_property
    def _ranks(self) -> list[int]:
        """Ranks worth trying, the largest first; only that one where the basis costs a record nothing."""
        most = len(self.spread.basis)
        if self.request.tail_rank or self._basis_bytes(most) < _NEGLIGIBLE:
            return [most]
        return [most, *(rank for rank in _RANKS if rank < most)]

    def _basis_bytes(self, rank: int) -> float:
        """A record's part of the basis."""
        if self.scope.records is None:
            return 0.0
        return _ENTRY_BYTES * rank * int(self.logits.shape[2]) / self.scope.records

    def _whole_bytes(self, choice: Choice) -> float:
        found = choice.quantised
        return self._bytes(found) + self._basis_bytes(max(found.sample_rank, found.view_rank))

    def _bytes(self, found: Quantised, top_bytes: float = _TOP_BYTES) -> float:
        return found.sketch_bytes + top_bytes * self._top_k(found)

    def _top_k(self, found: Quantised) -> int:
        few = FEW if found.lost > _MANY_BELOW else _MANY
        return self.request.top_k or min(few, self.logits.shape[2] - 1)

    def _value_step(self, found: Quantised, farthest: float) -> float:
        """Small for small logits; never below what a byte reaches so far with and float32 can tell."""
        if self.request.value_step:
            return self.request.value_step
        # A step beyond what the sketch misses a logit by would make the K largest worse.
        missed = self.std * found.lost**0.5
        usual = max(_LEAST_VALUE_STEP, min(VALUE_STEP, _VALUE_PART * self.std, missed))
        return float(f"{max(usual, self._least_value_step(farthest)):.3g}")

    def _least_value_step(self, farthest: float) -> float:
        return max(_ROOM * farthest / VALUE_LIMIT, least_spacing(self.spread.mean))

    def _codec(self, choice: Choice) -> tuple[JointSketch, float]:
        """The codec, and how far its sketch is from the largest logits."""
        found = choice.quantised
        key = choice.rank, choice.finer, found.step
        if key not in self._codecs:
            while len(self._codecs) >= _CODECS:
                self._codecs.pop(next(iter(self._codecs)))
            few = max(1, _TAIL_VALUES // self.held[0].size)
            some, top_k = self.held[: min(_TAIL_SAMPLES, few)], self._top_k(found)
            self._codecs[key] = codec_of(
                self._spread(choice.rank), found, some, top_k, lambda far: self._value_step(found, far)
            )
        return self._codecs[key]

    def _point(self, choice: Choice) -> RatePoint:
        codec, _ = self._codec(choice)
        settings = codec.settings
        setting = settings.top_k, settings.rank, settings.step, settings.value_step
        return measured_point(codec, self._measured, setting, self.logits.shape[1])

    @cached_property
    def _measured(self) -> Held:
        return Held.of(self.held.reshape(-1, self.held.shape[2]), self.held.shape[1])


def _losing_at_most(share: float) -> Callable[[Quantised], bool]:
    return lambda seen: seen.lost <= share


def _not_worse(measured: list[tuple[RatePoint, Choice]]) -> tuple[RatePoint, Choice]:
    """The first, or what loses less and takes no more: a finer sketch may leave little to put right."""
    most = measured[0][0].bytes_per_view
    return min((row for row in measured if row[0].bytes_per_view <= most), key=lambda row: row[0].lost or 0)


def _monotone(points: set[RatePoint], chosen: RatePoint) -> list[RatePoint]:
    """The rows that no smaller row loses less than, and the chosen one."""
    kept: list[RatePoint] = []
    for point in sorted(points, key=lambda row: (row.bytes_per_view, row.lost or 0)):
        if point == chosen or not kept or (point.lost or 0) < min(row.lost or 0 for row in kept):
            kept.append(point)
    return kept
