"""What a codec is: how the values of a teacher's output become a record, and the record values again.

In NumPy, and the reference that every other implementation is tested against. A codec is its settings, which
are what the manifest's JSON says, bound to the arrays that the store keeps for it under ``codec/{output}/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.codecs.fields import Fields
from cache_builder.format.codecs.record import Column, RecordLayout, record_layout
from cache_builder.format.errors import DataError, FormatError
from cache_builder.format.frozen import Frozen


@dataclass(frozen=True)
class Header:
    """An array that a codec keeps once per cache."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class CodecSettings(Frozen, ABC):
    """The numbers of a codec as the manifest states them; ``width`` is that of the output, C for logits."""

    since: ClassVar[int] = 1
    """The first format version that has this codec."""

    name: str
    """The codec's key in ``CODECS``."""

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The fields of a record, in packed order."""

    @abstractmethod
    def headers(self, width: int) -> tuple[Header, ...]:
        """The arrays that are stored once."""

    @abstractmethod
    def kept(self, width: int) -> int:
        """How many values of an output a record stores one by one: K of logits, ``width`` where it is all."""

    @abstractmethod
    def described(self, width: int) -> str:
        """What a record holds, for people, in a few words."""

    def problems(self, width: int) -> Iterator[str]:
        """Why an output of this width cannot have such records, one sentence each."""
        yield from ()

    @property
    def layout(self) -> RecordLayout:
        """The packed record."""
        return record_layout(self.columns)


S = TypeVar("S", bound=CodecSettings)


class Codec(ABC, Generic[S]):
    """Settings bound to their header arrays: encodes and decodes.

    ``settings``: what the manifest says. ``width``: values of the output. ``arrays``: by name of the header.
    """

    Settings: ClassVar[type[CodecSettings]]

    def __init__(self, settings: S, width: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises :class:`FormatError` where an array is missing or of another shape."""
        self.settings, self.width = settings, width
        self.arrays = {
            header.name: _checked(settings.name, header, arrays.get(header.name))
            for header in settings.headers(width)
        }

    @property
    def layout(self) -> RecordLayout:
        """The packed record."""
        return self.settings.layout

    def changed(self, **changes: object) -> Self:
        """The same arrays with other settings."""
        return type(self)(self.settings.model_copy(update=changes), self.width, self.arrays)

    def encode(self, values: NDArray[np.float32], views: int = 1, shared: Fields | None = None) -> Fields:
        """Values float32 [n, width] to the columns of n records.

        ``views``: so many consecutive values are of one sample, in the views of one tile. ``shared``: the
        fields of those samples' records [n, ...] that views share, where they are stored already.

        Raises :class:`DataError` for values that are not finite or that the codec's numbers cannot hold.
        """
        settled = self.settled(values)
        if not np.isfinite(settled).all():
            raise DataError(
                "cannot encode non-finite logits, nor ordinary ones of a class that the cache masks "
                "throughout"
            )
        columns = self._encode_views(settled, views, shared)
        return {field.name: columns[field.name] for field in self.layout.fields}

    def packed_views(self, values: NDArray[np.float32], height: int) -> NDArray[np.uint8]:
        """Values float32 [views, n, width] to packed records uint8 [views, n, nbytes].

        ``height``: so many consecutive views are in one tile.
        """
        if not any(field.shared for field in self.layout.fields):
            packed = self.pack(self.encode(values.reshape(-1, self.width)))
            return packed.reshape(*values.shape[:2], -1)
        tiles = [values[first : first + height] for first in range(0, len(values), height)]
        return np.concatenate([self._packed_tile(tile) for tile in tiles])

    def _packed_tile(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        views, rows = values.shape[:2]
        by_sample = np.ascontiguousarray(values.swapaxes(0, 1)).reshape(-1, self.width)
        packed = self.pack(self.encode(by_sample, views))
        return np.ascontiguousarray(packed.reshape(rows, views, -1).swapaxes(0, 1))

    def _encode_views(self, values: NDArray[np.float32], views: int, shared: Fields | None) -> Fields:
        """As :meth:`_encode`, for codecs whose records share fields with other views of their sample."""
        return self._encode(values)

    @abstractmethod
    def _encode(self, values: NDArray[np.float32]) -> Fields:
        """The columns of finite values [n, width]; more of them than the record has are left out."""

    @abstractmethod
    def decode(self, fields: Fields) -> NDArray[np.float32]:
        """Columns of n records to values float32 [n, width]. Invalid records give NaN."""

    def settled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values [n, width] as a record can hold them: masked ones are raised to what they decode to."""
        return values

    def without_place(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of n outputs [n] mask classes, though the codec was fitted to none that does."""
        return np.zeros(len(values), bool)

    @abstractmethod
    def usable(self, fields: Fields) -> NDArray[np.bool_]:
        """Whether each record [n] is of finite values that the codec can hold. False for invalid records."""

    def invalid(self, count: int) -> Fields:
        """Columns of ``count`` records that say: this sample could not be read. They decode to NaN."""
        columns = np.zeros(count, self.layout.dtype)
        self._invalidate(columns)
        return {name: columns[name] for name in columns.dtype.names or ()}

    @abstractmethod
    def _invalidate(self, columns: NDArray[Any]) -> None:
        """Make records of zeros, as a structured array [n], invalid."""

    def saturated(self, fields: Fields) -> int:
        """How many numbers lie at the end of their type, so that they may have been cut off."""
        return 0

    def coded(self, name: str, column: NDArray[np.uint8]) -> bytes:
        """A block of a field that the store keeps coded, uint8 [rows, count], as it keeps it."""
        raise NotImplementedError(f"codec {self.settings.name} has no coded fields")

    def coded_size(self, name: str, column: NDArray[np.uint8]) -> float:
        """About the bytes that :meth:`coded` gives."""
        return len(self.coded(name, column))

    def uncoded(self, name: str, block: bytes, rows: int) -> NDArray[np.uint8]:
        """The inverse, whatever follows in ``block``; :class:`FormatError` for one that ends too early."""
        raise NotImplementedError(f"codec {self.settings.name} has no coded fields")

    def pack(self, fields: Fields) -> NDArray[np.uint8]:
        """Columns to packed records uint8 [n, record_bytes]."""
        return self.layout.pack(fields)

    def unpack(self, records: NDArray[np.uint8]) -> Fields:
        """Packed records to columns; :class:`FormatError` for records that are not of this codec."""
        return self.layout.unpack(records)


class Stored(NamedTuple):
    """The classes that n records hold one by one."""

    classes: NDArray[np.int64]
    """Class ids [n, K], largest logit first."""
    values: NDArray[np.float32]
    """Their logits [n, K]."""
    lse: NDArray[np.float32]
    """Log-sum-exp of all logits [n] at temperature 1; NaN for an invalid record."""


class Ranked(Codec[S]):
    """A codec of logits: it also tells which classes are the largest, without decoding the rest."""

    @abstractmethod
    def stored(self, fields: Fields) -> Stored:
        """The K classes of every record with their logits; :class:`FormatError` for one that there is not."""

    def best(self, fields: Fields) -> NDArray[np.int64]:
        """The class of the largest logit of each record [n]."""
        best: NDArray[np.int64] = self.stored(fields).classes[:, 0]
        return best


def _checked(name: str, header: Header, array: NDArray[Any] | None) -> NDArray[Any]:
    if array is None:
        raise FormatError(f"codec {name} needs the array {header.name!r}, and was made without")
    if array.shape != header.shape:
        raise FormatError(
            f"codec {name} needs an array {header.name!r} of shape {list(header.shape)}, got "
            f"{list(array.shape)}"
        )
    return np.ascontiguousarray(array, dtype=header.dtype)
