"""What calibration was asked for, measured and chose."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, SerializerFunctionWrapHandler, model_serializer

from cache_builder.format.frozen import Frozen

_NEW = ("lose", "values")
_ALIKE = 1e-4


class CodecRequest(Frozen):
    """What the user asked of calibration; null = free."""

    bytes_per_view: PositiveFloat | None = None
    """The most a record should take on disk."""
    lose: PositiveFloat | None = None
    """The most of the logits' variance that a record should lose. The JSON has this key only where asked."""
    top_k: int | None = None
    """K."""
    tail_rank: int | None = None
    """r."""
    tail_step: PositiveFloat | None = None
    """Step of the coefficients, in logits."""
    value_step: PositiveFloat | None = None
    """Step of the K values, in logits."""
    values: Literal["float16", "bfloat16"] | None = None
    """What logits are rounded to where all of them are stored."""

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A cache that asks for nothing new is written, and has the id, as by the versions that knew no more.
        body: dict[str, Any] = serialize(self)
        return {key: value for key, value in body.items() if key not in _NEW or value is not None}


class RatePoint(Frozen):
    """One setting of the codec: what it costs and what it loses, on pairs that fitted nothing."""

    top_k: int
    tail_rank: int
    tail_step: float
    value_step: float
    bytes_per_view: float
    """On disk, after compression."""
    tv: tuple[float, float, float, float]
    """Mean total-variation distance of softmax(logits / T), decoded against live, at T = 1, 2, 4 and 8."""
    gradient_cosine: float
    """The smallest over a few losses, of the gradient that a half-trained student would get."""
    logit_error: float
    """Root-mean-square of decoded minus live logits, in logits."""
    lost: float | None = None
    """Share of the logits' variance around their class means that decoded logits lose."""
    kd_cosines: tuple[float, float] | None = None
    """Cosines between the gradients of kd from decoded and from live logits, at T = 1 and 4."""


class CalibrationSection(Frozen):
    """The pass that fitted the tail basis and chose the codec's settings."""

    pairs: int = Field(ge=0)
    """(view, row) pairs whose logits were used; 0 when nothing had to be fitted."""
    logit_std: float = Field(ge=0)
    """Standard deviation of those logits around their per-class mean, in logits."""
    tail_error: float = Field(ge=0)
    """Root-mean-square error of decoded against live logits on those pairs, in logits."""
    table: tuple[RatePoint, ...] = ()
    """Fitted on one half of the pairs, measured on the other; empty when nothing was chosen."""
    chosen: int | None = Field(default=None, ge=0)
    """The row of the table that the cache uses."""

    @property
    def is_alike(self) -> bool:
        """Whether the teacher answered every picture alike, but for rounding: there is nothing to lose."""
        return self.chosen is not None and self.logit_std < _ALIKE
