"""Codec ``all-logits``: format version 3. Every logit as a number of 16 bits, FORMAT.md says which.

For teachers whose own arithmetic has 16 bits nothing is lost at all. It is what a small record is measured
against, and the smaller of the two where a cache has few records and would need a large basis.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cache_builder.format.codecs.contract import CodecSettings, Header, Ranked, Stored
from cache_builder.format.codecs.fields import Fields, log_sum_exp, stored_first
from cache_builder.format.codecs.masking import LOWEST, is_masked
from cache_builder.format.codecs.record import Column
from cache_builder.format.errors import DataError

Half = Literal["float16", "bfloat16"]
LARGEST: dict[str, float] = {"float16": 65504.0, "bfloat16": 3.3895314e38}
"""The largest number of each kind."""


class AllLogitsSettings(CodecSettings):
    """Every logit by itself."""

    since: ClassVar[int] = 3

    name: Literal["all-logits"] = "all-logits"
    classes: int = Field(gt=0)
    """C."""
    values: Half
    """What each logit is rounded to."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """As FORMAT.md states."""
        return (Column("logit", "<f2" if self.values == "float16" else "<u2", self.classes),)

    def headers(self, width: int) -> tuple[Header, ...]:
        """Nothing is kept once."""
        return ()

    def kept(self, width: int) -> int:
        """All."""
        return width

    def described(self, width: int) -> str:
        """In a few words."""
        return f"all {width} logits in {self.values}"


class AllLogits(Ranked[AllLogitsSettings]):
    """Logits in float16, or the upper halves of float32 (bfloat16)."""

    Settings: ClassVar[type[CodecSettings]] = AllLogitsSettings

    @classmethod
    def of(cls, classes: int, values: Half) -> Self:
        """Nothing has to be fitted."""
        return cls(AllLogitsSettings(classes=classes, values=values), classes, {})

    def settled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [n, C] with masks raised to what any temperature still gives nothing."""
        return np.where(is_masked(values), np.maximum(values, np.float32(LOWEST)), values)

    def _encode(self, values: NDArray[np.float32]) -> Fields:
        if values.size and np.abs(values).max() > LARGEST[self.settings.values]:
            raise DataError(
                f"a logit of {np.abs(values).max():.3g} is more than {self.settings.values} holds: is the "
                "head trained?"
            )
        if self.settings.values == "float16":
            return {"logit": values.astype("<f2")}
        return {"logit": upper_halves(values)}

    def decode(self, fields: Fields) -> NDArray[np.float32]:
        """Columns to dense logits float32 [n, C]."""
        column = fields["logit"]
        if self.settings.values == "float16":
            return cast("NDArray[np.float32]", column.astype(np.float32))
        return (np.ascontiguousarray(column).astype(np.uint32) << np.uint32(16)).view(np.float32)

    def stored(self, fields: Fields) -> Stored:
        """All classes."""
        dense = self.decode(fields)
        index = stored_first(dense, self.width)
        lse = log_sum_exp(dense).astype(np.float32)
        return Stored(index, np.take_along_axis(dense, index, axis=1), lse)

    def best(self, fields: Fields) -> NDArray[np.int64]:
        """The first class of the largest logit."""
        return np.asarray(self.decode(fields).argmax(axis=1), np.int64)

    def usable(self, fields: Fields) -> NDArray[np.bool_]:
        """Finite logits."""
        return np.asarray(np.isfinite(self.decode(fields)).all(axis=1))

    def _invalidate(self, columns: NDArray[Any]) -> None:
        columns["logit"] = np.nan if self.settings.values == "float16" else _NAN


_NAN = 0x7FC0
_ROUND = 0x7FFF


def upper_halves(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite values rounded to bfloat16, to the nearest and halves to even, as 16 bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(_ROUND) + (bits >> np.uint32(16) & np.uint32(1))
    return cast("NDArray[np.uint16]", (rounded >> np.uint32(16)).astype("<u2"))
