"""Codec ``topk-tail``: format version 1, and caches of every class in version 2. FORMAT.md says it in prose.

K class ids with 8-bit logits between the largest and the K-th, r tail coefficients, the log-sum-exp.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cache_builder.format.codecs.contract import CodecSettings, Stored
from cache_builder.format.codecs.fields import Fields, log_sum_exp, stored_first
from cache_builder.format.codecs.masking import MASKED_BELOW, ORDINARY, MaskSection
from cache_builder.format.codecs.record import Column
from cache_builder.format.codecs.sketched import (
    Sketched,
    SketchedSettings,
    index_bits,
    joined_coefficients,
    split_coefficients,
)
from cache_builder.format.errors import DataError

VALUE_LEVELS = 255
MAX_SPAN = float(np.finfo(np.float16).max)


class TopkTailSettings(SketchedSettings):
    """A logit vector as K values between the largest and the K-th, and a tail sketch around the mean.

    Version 1; in version 2 for caches that store every class.
    """

    name: Literal["topk-tail"] = "topk-tail"
    top_k: int = Field(gt=0)
    """K, classes stored one by one, largest logit first. K = C means no tail."""
    index_bits: Literal[8, 16, 32]
    """Width of a stored class id."""
    tail_rank: int = Field(ge=0)
    """r, coefficients of the tail sketch; 0 when K = C."""
    tail_wide: int = Field(ge=0)
    """The first of the r coefficients that need int16; the others are int8."""
    tail_step: float = Field(ge=0)
    """Quantisation step of every coefficient, in logits. 0 when there is no tail."""
    masks: MaskSection | None = None
    """Of a teacher that masks classes. The JSON has this key only then."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tail_wide > self.tail_rank:
            raise ValueError("tail_wide must not exceed tail_rank")
        if (self.tail_rank > 0) != (self.tail_step > 0):
            raise ValueError("tail_step is positive exactly when tail_rank is")
        return self

    @property
    def columns(self) -> tuple[Column, ...]:
        """As FORMAT.md states."""
        return (
            Column("topk_max", "<f4", scalar=True),
            Column("lse", "<f4", scalar=True),
            Column("topk_span", "<f2", scalar=True),
            Column("tail_coef_wide", "<i2", self.tail_wide),
            self.index_column,
            Column("topk_value", "<u1", self.top_k),
            Column("tail_coef", "<i1", self.tail_rank - self.tail_wide, shuffle="noshuffle"),
        )


class TopkTail(Sketched[TopkTailSettings]):
    """The K largest logits at 8 bits, and a sketch of the others."""

    Settings: ClassVar[type[CodecSettings]] = TopkTailSettings

    @classmethod
    def without_tail(cls, classes: int, top_k: int | None = None) -> Self:
        """K classes, by default all, and the mean 0 of the others: nothing has to be fitted."""
        settings = TopkTailSettings.model_validate(
            {
                "top_k": top_k or classes, "index_bits": index_bits(classes), "tail_rank": 0, "tail_wide": 0,
                "tail_step": 0.0,
            }
        )  # fmt: skip
        arrays = {"mean": np.zeros(classes, np.float32), "basis": np.zeros((0, classes), np.float32)}
        return cls(settings, classes, arrays)

    def _encode(self, values: NDArray[np.float32]) -> Fields:
        """Raises :class:`DataError` for a span (largest minus K-th logit) beyond float16."""
        index = stored_first(values, self.settings.top_k)
        top = np.take_along_axis(values, index, axis=1)
        largest = top[:, 0]
        with np.errstate(over="ignore"):  # a difference beyond float32 is infinite, and refused as a span
            span = span_ceil16(largest - top[:, -1])
        fields: Fields = {
            "topk_max": largest.astype("<f4"),
            "lse": log_sum_exp(values).astype("<f4"),
            "topk_span": span,
            "topk_index": index.astype(self.settings.index_type),
            "topk_value": quantise(largest[:, None] - top, span),
        }
        return fields | self._tail(values)

    def _tail(self, values: NDArray[np.float32]) -> Fields:
        settings = self.settings
        if not settings.tail_rank:
            return {}
        narrow = settings.tail_rank - settings.tail_wide
        return split_coefficients(self.rounded(values), settings.tail_wide, narrow)

    def decode(self, fields: Fields) -> NDArray[np.float32]:
        """Columns to dense logits float32 [n, C]."""
        index = self.stored_index(fields)
        # No class outside the top K can exceed the K-th logit, whatever the sketch says.
        dense = np.minimum(self._sketched(fields), kth_logit(fields)[:, None])
        np.put_along_axis(dense, index, top_values(fields), axis=1)
        return dense

    def _sketched(self, fields: Fields) -> NDArray[np.float32]:
        """What the sketch says about every class: [n, C], or [1, C] where it is the mean alone."""
        return self.sketch(joined_coefficients(fields)) if self.settings.tail_rank else self.mean[None]

    def stored(self, fields: Fields) -> Stored:
        """The K classes, whose ids and values are stored as they are."""
        return Stored(self.stored_index(fields), top_values(fields), fields["lse"])

    def usable(self, fields: Fields) -> NDArray[np.bool_]:
        """Finite logits, a span that float16 holds, and no mask that took the whole range of the steps."""
        usable = np.isfinite(fields["lse"]) & np.isfinite(fields["topk_span"])
        return np.asarray(usable & ~self._unseen_masks(fields))

    def _unseen_masks(self, fields: Fields) -> NDArray[np.bool_]:
        """Records [n] in which a mask is the least of the K, where calibration saw none.

        The codec has no place for it: every other class of these would be alike.
        """
        largest = fields["topk_max"].astype(np.float64)
        if self.settings.masks is not None:
            return np.zeros(len(largest), bool)
        least = largest - fields["topk_span"]
        found: NDArray[np.bool_] = (least <= MASKED_BELOW) & (np.abs(largest) < ORDINARY)
        return found

    def _invalidate(self, columns: NDArray[Any]) -> None:
        columns["topk_max"] = np.nan
        columns["lse"] = np.nan


def quantise(below: NDArray[np.float32], span: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Distances [n, K] below the largest logit to the nearest of 256 levels between 0 and ``span`` [n]."""
    wide = span.astype(np.float32)
    scale = np.zeros_like(wide)
    np.divide(np.float32(VALUE_LEVELS), wide, out=scale, where=wide > 0)
    levels: NDArray[np.float32] = np.rint(below * scale[:, None])
    return np.clip(levels, 0, VALUE_LEVELS).astype(np.uint8)


def span_ceil16(span: NDArray[np.float32]) -> NDArray[np.float16]:
    """The smallest float16 that is not below ``span`` >= 0, so that no value saturates."""
    if span.size and float(span.max()) > MAX_SPAN:
        raise DataError(f"logits span {float(span.max()):.3g}, more than float16 holds: is the head trained?")
    rounded = span.astype(np.float16)
    # Positive floats are ordered like their bits: one more is the next float, subnormal ones included.
    bits = rounded.view(np.uint16) + (rounded < span)
    return bits.astype(np.uint16).view(np.float16)


def kth_logit(fields: Fields) -> NDArray[np.float32]:
    """The smallest stored logit [n]: the ceiling of the tail."""
    return fields["topk_max"].astype(np.float32) - fields["topk_span"].astype(np.float32)


def top_values(fields: Fields) -> NDArray[np.float32]:
    """The K stored logits [n, K], largest first."""
    # Divided first, so that the last level is exactly the span and the K-th logit exactly the tail's ceiling.
    fraction = fields["topk_value"].astype(np.float32) / np.float32(VALUE_LEVELS)
    below = fields["topk_span"].astype(np.float32)[:, None] * fraction
    return fields["topk_max"].astype(np.float32)[:, None] - below
