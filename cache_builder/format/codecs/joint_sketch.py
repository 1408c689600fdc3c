"""Codec ``joint-sketch``: format version 3. FORMAT.md states the same in prose.

What the views of a sample have in common is stored once; a view adds what it has of its own. Both are small
integers in one basis, and the classes that are put right one by one are named by their place in the order
that the sketch gives, which is mostly the right one. All of it goes through an entropy coder whose tables the
cache keeps once. Three quarters of an ImageNet teacher's variance is common to eight views
(``benchmarks/real_teachers.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from cache_builder.format.codecs.class_sketch import ORDER_GAP
from cache_builder.format.codecs.contract import CodecSettings, Header, Stored
from cache_builder.format.codecs.digits import BYTE, WIDE, Digits, is_radix
from cache_builder.format.codecs.entropy import PLACES, EntropyCoder
from cache_builder.format.codecs.fields import Fields, log_sum_exp, stored_first
from cache_builder.format.codecs.masked import Masking, MaskingSettings
from cache_builder.format.codecs.masking import MASKED_BELOW, MaskSection
from cache_builder.format.codecs.record import Column
from cache_builder.format.errors import DataError, FormatError

SAMPLE, VIEW = "sample", "view"
BASIS_BITS = 12
"""The basis is stored in steps of 2**-12."""
MOST_CLASSES = 32768
"""A place in their order fits a digit of two bytes."""
VALUE_LIMIT = 127
"""The largest residual, in value steps."""
FEW_VALUES = 7
"""A digit up to this limit has no room beyond what calibration saw."""
_BLOCK_VALUES = 2**22
_CODED, _AS_IT_IS = b"\x00", b"\x01"
Runs = tuple[tuple[int, int], ...]


class JointSketchSettings(MaskingSettings):
    """A logit vector as a sketch that its sample's views share, one of its own, and K values put right."""

    since: ClassVar[int] = 3

    name: Literal["joint-sketch"] = "joint-sketch"
    top_k: int = Field(gt=0)
    """K, classes put right one by one, largest logit first."""
    value_step: PositiveFloat
    """Quantisation step of the K values, in logits."""
    rank: int = Field(gt=0)
    """r, rows of the basis."""
    step: PositiveFloat
    """Quantisation step of a view's coefficients, in logits."""
    finer: int = Field(ge=0, le=6)
    """The shared coefficients have a step of ``step / 2**finer``."""
    dead_zone: float = Field(ge=0, lt=0.5)
    """A coefficient is rounded towards zero by so much of a step more than to the nearest."""
    sample_values: Runs
    """How many values each shared coefficient may take: pairs of (how many coefficients, values)."""
    view_values: Runs
    """The same for the integers of a view: valid or not, its coefficients, K places, K residuals."""
    masks: MaskSection | None = None
    """Of a teacher that masks classes. The JSON has this key only then."""

    @property
    def sample_digits(self) -> Digits:
        """How the shared integers are packed."""
        return Digits.of_runs(self.sample_values)

    @property
    def view_digits(self) -> Digits:
        """How the integers of a view are packed."""
        return Digits.of_runs(self.view_values)

    @property
    def sample_rank(self) -> int:
        """The first of the r coefficients, which the views share."""
        return sum(count for count, _ in self.sample_values)

    @property
    def view_rank(self) -> int:
        """The first of the r coefficients, of which a view has a part of its own."""
        return sum(count for count, _ in self.view_values) - 1 - 2 * self.top_k

    @property
    def unit(self) -> float:
        """What one of the decoder's integers is, in logits."""
        return self.step * 2.0 ** -(self.finer + BASIS_BITS)

    @property
    def value_limit(self) -> int:
        """The largest residual, in value steps."""
        return VALUE_LIMIT

    @property
    def columns(self) -> tuple[Column, ...]:
        """As FORMAT.md states."""
        return (
            Column(SAMPLE, "<u1", self.sample_digits.bytes, shuffle="noshuffle", shared=True, coded=True),
            Column(VIEW, "<u1", self.view_digits.bytes, shuffle="noshuffle", coded=True),
        )

    def headers(self, width: int) -> tuple[Header, ...]:
        """Mean, basis, and the tables of the entropy coder."""
        sample, view = len(self.sample_digits.values), len(self.view_digits.values)
        return (
            Header("mean", "<f4", (width,)),
            Header("basis", "<i2", (self.rank, width)),
            Header("sample_tables", "<u2", (sample, PLACES)),
            Header("sample_low", "<u1", (sample,)),
            Header("view_tables", "<u2", (view, PLACES)),
            Header("view_low", "<u1", (view,)),
        )

    def kept(self, width: int) -> int:
        """K."""
        return self.top_k

    def described(self, width: int) -> str:
        """K, and what the other classes are rebuilt from."""
        return (
            f"top {self.top_k} + a sketch of rank {self.view_rank} (step {self.step:g}) around one of rank "
            f"{self.sample_rank} that the views of a sample share"
        )

    def problems(self, width: int) -> Iterator[str]:
        """Numbers that do not fit C classes, or each other."""
        if self.top_k >= width or self.rank > width:
            yield f"codec.top_k must be below the width {width}, and codec.rank not above it"
        if self.top_k and sum(count for count, _ in self.view_values) < 1 + 2 * self.top_k:
            yield "codec.view_values are fewer than codec.top_k needs"
        if width > MOST_CLASSES:
            yield f"codec joint-sketch is for up to {MOST_CLASSES} classes"
        if not all(count > 0 and is_radix(m) for count, m in self.sample_values + self.view_values):
            yield f"codec.sample_values and codec.view_values must be odd, from 3 to {BYTE - 1}, or {WIDE}"
        elif max(self.sample_rank, self.view_rank) != self.rank or self.sample_rank < 1 or self.view_rank < 0:
            yield "codec.sample_values and codec.view_values do not fit codec.rank and codec.top_k"
        elif not self._holds_top(width):
            yield "codec.view_values leave no room for a place among all classes, or for a residual"

    def _holds_top(self, width: int) -> bool:
        # Classes that every record masks are the last ones of every order.
        ordered = width - (self.masks.classes if self.masks else 0)
        top = self.view_digits.limit[1 + self.view_rank :].reshape(2, self.top_k)
        return bool((top[0] >= ordered - 1).all() and (top[1] >= VALUE_LIMIT).all())


class Integers(NamedTuple):
    """The integers of n records."""

    shared: NDArray[np.int64]
    """Coefficients that the views of the sample share [n, sample_rank]."""
    is_valid: NDArray[np.bool_]
    """[n]."""
    own: NDArray[np.int64]
    """Coefficients of the view [n, view_rank]."""
    places: NDArray[np.int64]
    """Where the K classes stand in the order of the sketch [n, K]."""
    residuals: NDArray[np.int64]
    """Of their logits, in value steps [n, K]."""


class JointSketch(Masking[JointSketchSettings]):
    """A sketch that the views of a sample share, one of each view's own, and the K largest put right.

    ``mean`` is float32 [C]; ``basis`` int16 [r, C], in steps of 2**-12, with nearly orthonormal rows.
    """

    Settings: ClassVar[type[CodecSettings]] = JointSketchSettings

    @cached_property
    def basis(self) -> NDArray[np.float32]:
        """float32 [r, C]: what coefficients are computed with."""
        return self.arrays["basis"].astype(np.float32) / np.float32(2**BASIS_BITS)

    @cached_property
    def integer_basis(self) -> NDArray[np.float64]:
        """The stored integers of the basis [r, C] in float64, which is exact up to 2**53.

        Their sums with other integers are then the same in whatever order they are added.
        """
        return self.arrays["basis"].astype(np.float64)

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """Classes [C] that are masked in every record."""
        # A teacher without masks may have logits that are as low.
        return (self.mean <= MASKED_BELOW) & (self.settings.masks is not None)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """The mean [C] in units; far below all others where a class is a constant."""
        units = np.rint(self.mean.astype(np.float64) / self.settings.unit)
        # Times the number of classes it is the key of an order, which has 63 bits.
        return np.where(self.constant, -(2.0**47), units).astype(np.int64)

    @cached_property
    def coders(self) -> dict[str, EntropyCoder]:
        """The entropy coder of each field."""
        return {
            name: EntropyCoder(self.arrays[f"{name}_tables"], self.arrays[f"{name}_low"])
            for name in (SAMPLE, VIEW)
        }

    @cached_property
    def digits(self) -> dict[str, Digits]:
        """How the integers of each field are packed."""
        return {SAMPLE: self.settings.sample_digits, VIEW: self.settings.view_digits}

    def _encode(self, values: NDArray[np.float32]) -> Fields:
        return self._encode_views(values, 1, None)

    def _encode_views(self, values: NDArray[np.float32], views: int, shared: Fields | None) -> Fields:
        # Some samples at a time: dense integers of many classes are large.
        rows = max(1, _BLOCK_VALUES // (self.width * views)) * views
        parts = [
            self._encode_some(values[part], views, shared and {SAMPLE: shared[SAMPLE][part]})
            for part in _parts(len(values), rows)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in (SAMPLE, VIEW)}

    def _encode_some(self, values: NDArray[np.float32], views: int, shared: Fields | None) -> Fields:
        coef = self.coefficients(values)
        if shared is None:
            packed = self.digits[SAMPLE].pack(self._common(coef, views))
            packed = np.repeat(packed, views, axis=0)
        else:
            packed = shared[SAMPLE]
        common = self.digits[SAMPLE].unpack(packed)
        own = self._own(coef, common)
        sketched = self.sketched(common, own)
        index = stored_first(values, self.settings.top_k)
        places = _places(sketched, index)
        top = np.take_along_axis(values, index, axis=1)
        residuals = self.residuals(top, np.take_along_axis(sketched, index, axis=1))
        valid = np.zeros((len(values), 1), np.int64)
        integers = np.concatenate([valid, own, places, residuals], axis=1)
        return {SAMPLE: packed, VIEW: self.digits[VIEW].pack(integers)}

    def coefficients(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The coefficients [n, r] of logits [n, C], in logits."""
        with np.errstate(over="ignore", invalid="ignore"):
            coef = np.where(self.constant, 0, values - self.mean) @ self.basis.T
        if not np.isfinite(coef).all():
            raise DataError(f"logits up to {np.abs(values).max():.3g} overflow float32 in the basis")
        return cast("NDArray[np.float32]", coef.astype(np.float32))

    def _common(self, coef: NDArray[np.float32], views: int) -> NDArray[np.float32]:
        """What the views of each sample share [n / views, sample_rank], in the finer step."""
        means = coef.reshape(-1, views, coef.shape[1]).mean(axis=1)[:, : self.settings.sample_rank]
        return rounded(means, self.settings.step / 2**self.settings.finer, self.settings.dead_zone)

    def _own(self, coef: NDArray[np.float32], common: NDArray[np.int64]) -> NDArray[np.int64]:
        """What is left of the coefficients of each view [n, view_rank], within the limits of its digits."""
        left = coef[:, : self.settings.view_rank].copy()
        both = min(self.settings.view_rank, self.settings.sample_rank)
        left[:, :both] -= common[:, :both].astype(np.float32) * np.float32(
            self.settings.step / 2**self.settings.finer
        )
        limits = self.digits[VIEW].limit[1 : 1 + self.settings.view_rank]
        steps = rounded(left, self.settings.step, self.settings.dead_zone)
        return np.clip(steps, -limits, limits).astype(np.int64)

    def sketched(self, common: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the coefficients say about every class [n, C], in units: sums of integers, exact anywhere."""
        total = np.zeros((len(own), self.settings.rank))
        total[:, : common.shape[1]] += common
        total[:, : own.shape[1]] += own * float(2**self.settings.finer)
        return (total @ self.integer_basis).astype(np.int64) + self.offsets

    def residuals(self, top: NDArray[np.float32], sketched: NDArray[np.int64]) -> NDArray[np.int64]:
        """Live minus sketched logits [n, K] in value steps; what they decode to falls from left to right."""
        sketch, step = self.in_logits(sketched), np.float32(self.settings.value_step)
        codes = np.rint((top - sketch) / step).clip(-VALUE_LIMIT, VALUE_LIMIT)
        gap = step / np.float32(ORDER_GAP)
        for k in range(1, self.settings.top_k):
            before = sketch[:, k - 1] + step * codes[:, k - 1]
            most = np.floor((before - gap - sketch[:, k]) / step)
            codes[:, k] = np.minimum(codes[:, k], most).clip(-VALUE_LIMIT, VALUE_LIMIT)
        return cast("NDArray[np.int64]", codes.astype(np.int64))

    def in_logits(self, units: NDArray[np.int64]) -> NDArray[np.float32]:
        """Units as logits."""
        return units.astype(np.float32) * np.float32(self.settings.unit)

    def integers(self, fields: Fields) -> Integers:
        """The integers of n records."""
        found, rank, k = self.digits[VIEW].unpack(fields[VIEW]), self.settings.view_rank, self.settings.top_k
        places = found[:, 1 + rank : 1 + rank + k]
        if places.size and not 0 <= places.min() <= places.max() < self.width:
            raise FormatError(
                f"a record names a place beyond the {self.width} classes: it is of another cache"
            )
        shared = self.digits[SAMPLE].unpack(fields[SAMPLE])
        return Integers(shared, found[:, 0] == 0, found[:, 1 : 1 + rank], places, found[:, 1 + rank + k :])

    def decode(self, fields: Fields) -> NDArray[np.float32]:
        """Columns to dense logits float32 [n, C]."""
        return self._decoded(fields)[0]

    def _decoded(self, fields: Fields) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Dense logits [n, C], and the K classes [n, K]."""
        slices = _parts(len(fields[VIEW]), max(1, _BLOCK_VALUES // self.width))
        parts = [self._decoded_some({name: fields[name][part] for name in (SAMPLE, VIEW)}) for part in slices]
        return np.concatenate([dense for dense, _ in parts]), np.concatenate([index for _, index in parts])

    def _decoded_some(self, fields: Fields) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        found = self.integers(fields)
        sketched = self.sketched(found.shared, found.own)
        index = _at_places(sketched, found.places)
        dense = np.where(self.constant, self.mean, self.in_logits(sketched))
        step = np.float32(self.settings.value_step)
        top = np.take_along_axis(dense, index, axis=1) + step * found.residuals.astype(np.float32)
        # No class outside the top K reaches the K-th logit, whatever the sketch says.
        dense = np.minimum(dense, top[:, -1:] - step / np.float32(ORDER_GAP))
        np.put_along_axis(dense, index, top, axis=1)
        dense[~found.is_valid] = np.nan
        return dense, index

    def stored(self, fields: Fields) -> Stored:
        """The K classes; lse is that of the decoded logits."""
        dense, index = self._decoded(fields)
        lse = log_sum_exp(dense).astype(np.float32)
        return Stored(index, np.take_along_axis(dense, index, axis=1), lse)

    def usable(self, fields: Fields) -> NDArray[np.bool_]:
        """Records that are not marked as invalid."""
        usable: NDArray[np.bool_] = self.digits[VIEW].unpack_first(fields[VIEW]) == 0
        return usable

    def _invalidate(self, columns: NDArray[Any]) -> None:
        integers = np.zeros((1, len(self.digits[VIEW].values)), np.int64)
        integers[:, 0] = 1
        columns[VIEW] = self.digits[VIEW].pack(integers)
        columns[SAMPLE] = self.digits[SAMPLE].pack(np.zeros((1, self.settings.sample_rank), np.int64))

    def saturated(self, fields: Fields) -> int:
        """Coefficients and residuals at the end of their digits."""
        found = self.integers(fields)
        own_limit = self.digits[VIEW].limit[1 : 1 + self.settings.view_rank]
        coefficients = _at_end(found.shared, self.digits[SAMPLE].limit) + _at_end(found.own, own_limit)
        return coefficients + int((np.abs(found.residuals) == VALUE_LIMIT).sum())

    def coded(self, name: str, column: NDArray[np.uint8]) -> bytes:
        """A block of a field [rows, bytes] as the store keeps it, not coded where that shortens nothing."""
        stream = self.coders[name].encode(self.digits[name].unpack(column))
        return _CODED + stream if len(stream) < column.nbytes else _AS_IT_IS + column.tobytes()

    def coded_size(self, name: str, column: NDArray[np.uint8]) -> float:
        """Bytes that :meth:`coded` gives, without coding: off by some bytes."""
        return 1 + min(column.nbytes, self.coders[name].size(self.digits[name].unpack(column)))

    def uncoded(self, name: str, block: bytes, rows: int) -> NDArray[np.uint8]:
        """The inverse; :class:`FormatError` for a block that ends too early."""
        digits, kind, body = self.digits[name], block[:1], block[1:]
        if kind == _CODED:
            return digits.pack(self.coders[name].decode(body, rows))
        if kind != _AS_IT_IS:
            raise FormatError(f"a block of records begins with {kind.hex() or 'nothing'}, expected 00 or 01")
        if len(body) < rows * digits.bytes:
            raise FormatError("a block of records is shorter than its records")
        return np.frombuffer(body[: rows * digits.bytes], np.uint8).reshape(rows, digits.bytes)

    def widened(
        self, left: NDArray[np.bool_], constants: NDArray[np.float32], changes: Mapping[str, object]
    ) -> Self:
        """The codec of all C classes, where this one is of those that are ``left`` [C]."""
        mean, basis = constants.copy(), np.zeros((self.settings.rank, len(left)), np.int16)
        mean[left], basis[:, left] = self.mean, self.arrays["basis"]
        arrays = {**self.arrays, "mean": mean, "basis": basis}
        return type(self)(self.settings.model_copy(update=dict(changes)), len(left), arrays)


def _parts(count: int, size: int) -> list[slice]:
    """Slices of at most so many of ``count`` rows; one of no rows where there are none."""
    return [slice(start, start + size) for start in range(0, count, size)] or [slice(0, 0)]


def rounded(values: NDArray[np.float32], step: float, dead_zone: float) -> NDArray[np.float32]:
    """Values in whole steps, as floats; those near the middle of two go towards zero."""
    steps = np.floor(np.abs(values) / np.float32(step) + np.float32(0.5 - dead_zone))
    return cast("NDArray[np.float32]", np.copysign(steps, values))


def _at_end(integers: NDArray[np.int64], limit: NDArray[np.int64]) -> int:
    """How many integers [n, s] are at the limit [s] of their digit.

    A digit of few values is as large as its coefficients, give or take one in some thousands: nothing is said
    by those.
    """
    return int(((np.abs(integers) == limit) & (limit > FEW_VALUES)).sum())


def _order_keys(sketched: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integers [n, C] that are all different in a row: falling by the sketch, equal ones by class id."""
    classes = sketched.shape[1]
    keys: NDArray[np.int64] = np.arange(classes) - sketched * classes
    return keys


def _places(sketched: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where classes [n, K] stand in the order of the sketch [n, C]."""
    keys = _order_keys(sketched)
    wanted = np.take_along_axis(keys, index, axis=1)
    return np.stack([(keys < key[:, None]).sum(axis=1) for key in wanted.T], axis=1)


def _at_places(sketched: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The inverse: the classes [n, K] at those places."""
    keys = _order_keys(sketched)
    most = int(places.max(initial=0)) + 1
    if most < keys.shape[1]:
        chosen = np.argpartition(keys, most - 1, axis=1)[:, :most]
    else:
        chosen = np.broadcast_to(np.arange(keys.shape[1]), keys.shape)
    order = np.take_along_axis(keys, chosen, axis=1).argsort(axis=1)
    ranked = np.take_along_axis(chosen, order, axis=1)
    return np.take_along_axis(ranked, places, axis=1)
