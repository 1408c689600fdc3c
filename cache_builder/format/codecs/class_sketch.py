"""Codec ``class-sketch``: format version 2. FORMAT.md states the same in prose.

Every logit is rebuilt from r small integers: their distance from what is usual for the teacher's best class.
The K largest are then put right one by one. What is usual is known from calibration (``centres``), so that a
coefficient costs some two bits less than its distance from the mean of all samples would.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator

from cache_builder.format.codecs.contract import CodecSettings, Header, Stored
from cache_builder.format.codecs.fields import Fields, log_sum_exp_above, stored_first
from cache_builder.format.codecs.masking import MaskSection
from cache_builder.format.codecs.record import Column
from cache_builder.format.codecs.sketched import (
    NIBBLE,
    Sketched,
    SketchedSettings,
    joined_coefficients,
    split_coefficients,
    unpack_halves,
)

ORDER_GAP = 8
"""Decoded neighbours of the top K differ by at least this part (1/8) of the value step."""
_MOST_RANKED = 2**16
_FIXED_POINT = 2.0**15


class ClassSketchSettings(SketchedSettings):
    """A logit vector as a sketch around what is usual for its best class, and K values beside the sketch."""

    since: ClassVar[int] = 2

    name: Literal["class-sketch"] = "class-sketch"
    top_k: int = Field(gt=0)
    """K, classes stored one by one, largest logit first."""
    index_bits: Literal[8, 16, 32]
    """Width of a stored class id."""
    index_coding: Literal["class", "rank"] = "class"
    """Whether ids after the first are class ids, or places in what is usual for the best class."""
    value_bits: Literal[8, 16]
    """Width of a stored value."""
    value_step: PositiveFloat
    """Quantisation step of the K values, in logits."""
    tail_rank: int = Field(gt=0)
    """r, coefficients of the sketch."""
    tail_wide: int = Field(ge=0)
    """The first of the r coefficients, which are int16."""
    tail_bytes: int = Field(ge=0)
    """The next ones, which are int8; the others are half bytes."""
    tail_step: PositiveFloat
    """Quantisation step of every coefficient, in logits."""
    masks: MaskSection | None = None
    """Of a teacher that masks classes. The JSON has this key only then."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tail_packed < 0:
            raise ValueError("tail_wide + tail_bytes must not exceed tail_rank")
        return self

    @property
    def tail_packed(self) -> int:
        """The last of the r coefficients, two in a byte."""
        return self.tail_rank - self.tail_wide - self.tail_bytes

    @property
    def value_limit(self) -> int:
        """The largest residual, in value steps."""
        return int(2 ** (self.value_bits - 1)) - 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """As FORMAT.md states."""
        return (
            Column("lse_above", "<f2", scalar=True),
            Column("tail_coef_wide", "<i2", self.tail_wide),
            self.index_column,
            Column("topk_residual", f"<i{self.value_bits // 8}", self.top_k, shuffle="noshuffle"),
            Column("tail_coef", "<i1", self.tail_bytes, shuffle="noshuffle"),
            Column("tail_coef_packed", "<u1", -(-self.tail_packed // 2), shuffle="noshuffle"),
        )

    def headers(self, width: int) -> tuple[Header, ...]:
        """Mean, basis, and the usual coefficients of every class."""
        return *super().headers(width), Header("centres", "<i2", (width, self.tail_rank))

    def problems(self, width: int) -> Iterator[str]:
        """Also places that are more than their table holds."""
        yield from super().problems(width)
        if self.index_coding == "rank" and width > _MOST_RANKED:
            yield f"codec.index_coding = rank is for up to {_MOST_RANKED} classes"


class ClassSketch(Sketched[ClassSketchSettings]):
    """A sketch around what is usual for the best class; the K largest are put right one by one.

    ``centres`` is int16 [C, r]: the usual coefficients of samples whose best class is c.
    """

    Settings: ClassVar[type[CodecSettings]] = ClassSketchSettings

    @property
    def centres(self) -> NDArray[np.int16]:
        """int16 [C, r]."""
        return self.arrays["centres"]

    @cached_property
    def ranking(self) -> NDArray[np.uint16]:
        """For each best class [C] all classes [C] in their usual order, the class itself first.

        By falling ``mean / step + centres @ basis`` in fixed-point numbers of 15 binary places, equal ones by
        class id: sums of integers, so that every machine finds the same order.
        """
        # Integers in float64, which is exact up to 2^53 in whatever order they are added.
        scores = self.centres.astype(np.float64) @ np.rint(self.basis.astype(np.float64) * _FIXED_POINT)
        scores += np.rint(self.mean.astype(np.float64) * (_FIXED_POINT / self.settings.tail_step))
        np.fill_diagonal(scores, np.inf)
        return np.argsort(-scores, axis=1, kind="stable").astype(np.uint16)

    @cached_property
    def places(self) -> NDArray[np.uint16]:
        """The inverse of :attr:`ranking`: for each best class, where every class stands."""
        places = np.empty_like(self.ranking)
        np.put_along_axis(places, self.ranking, np.arange(self.width, dtype=places.dtype)[None], axis=1)
        return places

    @property
    def is_ranked(self) -> bool:
        """Whether class ids after the first are stored as places in the usual order."""
        return self.settings.index_coding == "rank"

    def _encode(self, values: NDArray[np.float32]) -> Fields:
        settings = self.settings
        index = stored_first(values, settings.top_k)
        top = np.take_along_axis(values, index, axis=1)
        coef = self.rounded(values) - self.centres[index[:, 0]].astype(np.float32)
        fields: Fields = {
            "lse_above": log_sum_exp_above(values).astype("<f2"),
            "topk_index": self._coded(index).astype(settings.index_type),
            **split_coefficients(coef, settings.tail_wide, settings.tail_bytes),
        }
        sketched = self.sketch(self._coefficients(fields, index[:, 0]))
        fields["topk_residual"] = residuals(top, np.take_along_axis(sketched, index, axis=1), settings)
        return fields

    def _coded(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class ids [n, K] as stored: the best one, and the places of the others in its usual order."""
        return _recoded(index, self.places) if self.is_ranked else index

    def classes(self, fields: Fields) -> NDArray[np.int64]:
        """The K class ids [n, K], largest logit first; :class:`FormatError` for one that there is not."""
        index = self.stored_index(fields)
        return _recoded(index, self.ranking) if self.is_ranked else index

    def _coefficients(self, fields: Fields, best: NDArray[np.int64]) -> NDArray[np.float32]:
        """The r coefficients [n, r] in units of the step, the usual ones of the best class [n] added."""
        left = joined_coefficients(fields, self.settings.tail_packed)
        return left + self.centres[best].astype(np.float32)

    def decode(self, fields: Fields) -> NDArray[np.float32]:
        """Columns to dense logits float32 [n, C]."""
        index = self.classes(fields)
        dense = self.sketch(self._coefficients(fields, index[:, 0]))
        top = self._put_right(np.take_along_axis(dense, index, axis=1), fields)
        # No class outside the top K reaches the K-th logit, whatever the sketch says.
        ceiling = top[:, -1:] - np.float32(self.settings.value_step / ORDER_GAP)
        dense = np.asarray(np.minimum(dense, ceiling), np.float32)
        np.put_along_axis(dense, index, top, axis=1)
        return dense

    def stored(self, fields: Fields) -> Stored:
        """The K classes, with the sketch of theirs alone; lse is on the scale of the decoded values."""
        index = self.classes(fields)
        coef = self._coefficients(fields, index[:, 0]) * np.float32(self.settings.tail_step)
        columns = self.basis.T
        sketched = np.stack([(coef * columns[ids]).sum(axis=1) + self.mean[ids] for ids in index.T], axis=1)
        values = self._put_right(sketched, fields)
        lse: NDArray[np.float32] = values[:, 0] + fields["lse_above"].astype(np.float32)
        return Stored(index, values, lse)

    def _put_right(self, sketched: NDArray[np.float32], fields: Fields) -> NDArray[np.float32]:
        # Not a number where the record is invalid, which makes every class so.
        invalid = fields["lse_above"].astype(np.float32)[:, None] * np.float32(0)
        residual = np.float32(self.settings.value_step) * fields["topk_residual"].astype(np.float32)
        return cast("NDArray[np.float32]", sketched + residual + invalid)

    def usable(self, fields: Fields) -> NDArray[np.bool_]:
        """Finite logits."""
        usable: NDArray[np.bool_] = np.isfinite(fields["lse_above"])
        return usable

    def _invalidate(self, columns: NDArray[Any]) -> None:
        columns["lse_above"] = np.nan

    def saturated(self, fields: Fields) -> int:
        """Also residuals and half bytes."""
        count = super().saturated(fields)
        count += int((np.abs(fields["topk_residual"].astype(np.int32)) == self.settings.value_limit).sum())
        if self.settings.tail_packed:
            small = unpack_halves(fields["tail_coef_packed"], self.settings.tail_packed)
            count += int((np.abs(small) == NIBBLE).sum())
        return count

    def _widened_tables(self, left: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        centres = np.zeros((len(left), self.settings.tail_rank), np.int16)
        centres[left] = self.centres
        return {"centres": centres}


def _recoded(index: NDArray[np.int64], table: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The first of each row [n, K], and what the table [C, C] has for it in the place of the others."""
    others = table[index[:, :1], index[:, 1:]]
    return np.concatenate([index[:, :1], others.astype(np.int64)], axis=1)


def residuals(
    values: NDArray[np.float32], sketched: NDArray[np.float32], settings: ClassSketchSettings
) -> NDArray[np.signedinteger[Any]]:
    """Live minus sketched logits [n, K] in value steps; what they decode to falls from left to right.

    Losses that rank classes would otherwise see two near ones in the wrong order.
    """
    step, limit = np.float32(settings.value_step), settings.value_limit
    codes = np.rint((values - sketched) / step).clip(-limit, limit)
    gap = step / np.float32(ORDER_GAP)
    for k in range(1, settings.top_k):
        before = sketched[:, k - 1] + step * codes[:, k - 1]
        most = np.floor((before - gap - sketched[:, k]) / step)
        codes[:, k] = np.minimum(codes[:, k], most).clip(-limit, limit)
    return cast("NDArray[np.signedinteger[Any]]", codes.astype(f"<i{settings.value_bits // 8}"))
