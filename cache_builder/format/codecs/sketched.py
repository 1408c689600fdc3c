"""What codecs share that store K classes beside a sketch: r coefficients in a basis, around a mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.codecs.contract import Header
from cache_builder.format.codecs.fields import Fields
from cache_builder.format.codecs.masked import Masking, MaskingSettings
from cache_builder.format.codecs.record import Column
from cache_builder.format.errors import DataError, FormatError

NIBBLE = 7
"""A packed coefficient lies in -7 .. 7; it is stored with 8 added."""
INT8_MAX, INT16_MAX = 127, 32767


def index_bits(classes: int) -> int:
    """Bits of the smallest unsigned type that holds ``classes - 1``."""
    return 8 if classes <= 2**8 else 16 if classes <= 2**16 else 32


class SketchedSettings(MaskingSettings):
    """Settings that every codec with a sketch has. Each declares its own, in the order of its JSON."""

    if TYPE_CHECKING:
        top_k: int
        index_bits: int
        tail_rank: int
        tail_wide: int
        tail_step: float

    def headers(self, width: int) -> tuple[Header, ...]:
        """Mean and basis."""
        return Header("mean", "<f4", (width,)), Header("basis", "<f4", (self.tail_rank, width))

    def kept(self, width: int) -> int:
        """K."""
        return self.top_k

    def described(self, width: int) -> str:
        """K, and what the other classes are rebuilt from."""
        if self.tail_rank:
            return f"top {self.top_k} + rank {self.tail_rank} sketch (step {self.tail_step:g})"
        if self.top_k >= width:
            return f"top {self.top_k}: every class, no tail"
        is_rest = self.masks is not None and self.masks.classes == width - self.top_k
        return f"top {self.top_k}, all others {'masked' if is_rest else 'alike (imported)'}"

    def problems(self, width: int) -> Iterator[str]:
        """Numbers that do not fit C classes."""
        if self.top_k > width or self.tail_rank > width:
            yield f"codec.top_k and codec.tail_rank must not exceed the width {width}"
        if self.top_k == width and self.tail_rank:
            yield "codec.top_k = the width leaves no tail, so codec.tail_rank must be 0"
        if 2**self.index_bits < width:
            yield f"codec.index_bits = {self.index_bits} cannot hold a class id below {width}"

    @property
    def index_column(self) -> Column:
        """The K class ids."""
        return Column("topk_index", f"<u{self.index_bits // 8}", self.top_k)

    @property
    def index_type(self) -> str:
        """The type of a stored class id."""
        return self.index_column.dtype


K = TypeVar("K", bound=SketchedSettings)


class Sketched(Masking[K]):
    """Every class is ``mean + basis^T (step * coef)``; the K largest are stored one by one beside it.

    ``mean`` is float32 [C], ``basis`` float32 [r, C] with orthonormal rows.
    """

    ends: ClassVar[dict[str, int]] = {"tail_coef_wide": INT16_MAX, "tail_coef": INT8_MAX}
    """The largest number that each field of saturating integers holds."""

    @property
    def basis(self) -> NDArray[np.float32]:
        """float32 [r, C]."""
        return self.arrays["basis"]

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The coefficients [n, r] of logits [n, C] in units of the step, as whole floats."""
        with np.errstate(over="ignore", invalid="ignore"):
            coef = np.rint((values - self.mean) @ self.basis.T / np.float32(self.settings.tail_step))
        if not np.isfinite(coef).all():
            raise DataError(f"logits up to {np.abs(values).max():.3g} overflow float32 in the tail basis")
        return cast("NDArray[np.float32]", coef)

    def sketch(self, coef: NDArray[np.float32]) -> NDArray[np.float32]:
        """What coefficients [n, r] in units of the step say about every class [n, C]."""
        scaled = coef * np.float32(self.settings.tail_step)
        return self.mean + cast("NDArray[np.float32]", scaled @ self.basis)

    def stored_index(self, fields: Fields) -> NDArray[np.int64]:
        """The K numbers [n, K] that say which classes these are; :class:`FormatError` for one beyond C."""
        index = fields["topk_index"].astype(np.int64)
        if index.size and index.max() >= self.width:
            raise FormatError(f"a record names class {index.max()} of {self.width}: it is of another cache")
        return index

    def best(self, fields: Fields) -> NDArray[np.int64]:
        """The first class id, which is stored as it is."""
        return fields["topk_index"][..., 0].astype(np.int64)

    def saturated(self, fields: Fields) -> int:
        """How many integers lie at the end of their type."""
        found = {name: fields[name] for name in self.ends if name in fields}
        return sum(
            int((np.abs(column.astype(np.int32)) == self.ends[name]).sum()) for name, column in found.items()
        )

    def widened(
        self, left: NDArray[np.bool_], constants: NDArray[np.float32], changes: Mapping[str, object]
    ) -> Self:
        """The codec of all C classes, where this one is of those that are ``left`` [C].

        ``constants`` [C]: what the others decode to in every record. ``changes``: to the settings.
        """
        classes, rank = len(left), self.settings.tail_rank
        mean, basis = constants.copy(), np.zeros((rank, classes), np.float32)
        mean[left], basis[:, left] = self.mean, self.basis
        arrays = {"mean": mean, "basis": basis} | self._widened_tables(left)
        update = {"index_bits": index_bits(classes), **changes}
        return type(self)(self.settings.model_copy(update=update), classes, arrays)

    def _widened_tables(self, left: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        return {}


def split_coefficients(coef: NDArray[np.float32], wide: int, narrow: int) -> Fields:
    """Rounded coefficients [n, r], saturated: the first int16, then int8, the others in half bytes."""
    end = wide + narrow
    return {
        "tail_coef_wide": coef[:, :wide].clip(-INT16_MAX, INT16_MAX).astype("<i2"),
        "tail_coef": coef[:, wide:end].clip(-INT8_MAX, INT8_MAX).astype("i1"),
        "tail_coef_packed": pack_halves(coef[:, end:].clip(-NIBBLE, NIBBLE).astype("i1")),
    }


def joined_coefficients(fields: Fields, packed: int = 0) -> NDArray[np.float32]:
    """The inverse: r coefficients [n, r] in units of the step, the last ``packed`` of half a byte."""
    parts = [fields[name] for name in ("tail_coef_wide", "tail_coef") if name in fields]
    if packed:
        parts.append(unpack_halves(fields["tail_coef_packed"], packed))
    return np.concatenate(parts, axis=1).astype(np.float32)


def pack_halves(coef: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Coefficients [n, p] in -7 .. 7 to bytes [n, ceil(p / 2)], the even ones in the low half."""
    even = np.pad(coef, ((0, 0), (0, coef.shape[1] % 2))) + np.int8(NIBBLE + 1)
    halves = even.astype(np.uint8)
    return cast("NDArray[np.uint8]", halves[:, ::2] | (halves[:, 1::2] << 4))


def unpack_halves(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """The inverse: bytes [n, ceil(count / 2)] to coefficients [n, count]."""
    halves = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), 2 * packed.shape[1])
    return (halves.astype(np.int8) - np.int8(NIBBLE + 1))[:, :count]
