"""The codecs as the manifest states them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, SerializerFunctionWrapHandler, model_serializer, model_validator

from cache_builder.format.manifest.value import Frozen


def _without_absent(body: dict[str, Any], optional: str) -> dict[str, Any]:
    """The JSON object without a key that only some manifests have."""
    return {key: value for key, value in body.items() if key != optional or value is not None}


class MaskSection(Frozen):
    """What masked logits (-1e4, -1e9, -infinity beside ordinary ones) were raised to before encoding."""

    classes: int = Field(ge=0)
    """Classes that are masked in every record: they decode to their constant in ``codec/mean``."""
    lowest: float
    """What these decode to at least."""
    floor: float
    """What a logit was raised to that only some records mask."""


class CodecSection(Frozen):
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

    @model_serializer(mode="wrap")
    def _without_absent_masks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_absent(serialize(self), "masks")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tail_wide > self.tail_rank:
            raise ValueError("tail_wide must not exceed tail_rank")
        if (self.tail_rank > 0) != (self.tail_step > 0):
            raise ValueError("tail_step is positive exactly when tail_rank is")
        return self


class SketchSection(Frozen):
    """A logit vector as a sketch around what is usual for its best class, and K values beside the sketch."""

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

    @model_serializer(mode="wrap")
    def _without_absent_masks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_absent(serialize(self), "masks")

    @property
    def tail_packed(self) -> int:
        """The last of the r coefficients, two in a byte."""
        return self.tail_rank - self.tail_wide - self.tail_bytes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tail_packed < 0:
            raise ValueError("tail_wide + tail_bytes must not exceed tail_rank")
        return self


Codec = CodecSection | SketchSection
"""How a logit vector becomes a record."""
