"""The packed record: its fields one after the other, little-endian, without padding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cache_builder.format.codecs.fields import Fields
from cache_builder.format.errors import FormatError

Shuffle = Literal["noshuffle", "bitshuffle"]


class Part(StrEnum):
    """Which fields of a record."""

    WHOLE = "whole"
    """All of them."""
    SHARED = "shared"
    """Those that all views of a tile have in common; they come first."""
    OWN = "own"
    """The others."""


@dataclass(frozen=True)
class Column:
    """A field as a codec declares it: ``count`` values of ``dtype`` in every record, none where it is 0."""

    name: str
    dtype: str
    """NumPy's name of the type, little-endian, such as ``<u2``."""
    count: int = 1
    scalar: bool = False
    """Whether the store's array of this field lacks the last axis, so that it is [V, N]."""
    shuffle: Shuffle = "bitshuffle"
    """What Blosc does to the bytes of a chunk before it compresses them.

    Small coefficients are best left to zstd's entropy coder byte by byte: 32.7 bytes instead of 36.0 for 64
    of them (glyphs, 482 classes, 2026-11-25); numbers of several bytes are not.
    """
    shared: bool = False
    """Whether all views of a tile have the same value of this field, which the store then keeps once."""
    coded: bool = False
    """Whether the store keeps blocks of the codec's own entropy coder in the place of the field's bytes."""


@dataclass(frozen=True)
class Field:
    """One field of a record: ``count`` values of ``dtype``, at byte ``offset`` of the packed record."""

    name: str
    dtype: np.dtype[Any]
    count: int
    scalar: bool
    offset: int
    shuffle: Shuffle
    shared: bool = False
    coded: bool = False

    @property
    def array(self) -> str:
        """Store path of the array that holds this field for every (view, row)."""
        return f"records/{self.name}"

    @property
    def nbytes(self) -> int:
        """Bytes of this field in a packed record."""
        return self.dtype.itemsize * self.count


@dataclass(frozen=True)
class RecordLayout:
    """Where the fields of a packed record lie."""

    columns: tuple[Column, ...]
    """The fields in packed order. Those of count 0 are left out of the record."""

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields that a record has, in packed order."""
        fields: list[Field] = []
        offset = 0
        for column in self.columns:
            if column.count:
                dtype = np.dtype(column.dtype)
                fields.append(
                    Field(
                        column.name,
                        dtype,
                        column.count,
                        column.scalar,
                        offset,
                        column.shuffle,
                        column.shared,
                        column.coded,
                    )
                )
                offset += fields[-1].nbytes
        return tuple(fields)

    def part(self, part: Part) -> RecordLayout:
        """The layout of some of the fields alone: a record is its shared part, then its own."""
        if part is Part.WHOLE:
            return self
        return record_layout(
            tuple(column for column in self.columns if column.shared == (part is Part.SHARED))
        )

    @cached_property
    def shared_bytes(self) -> int:
        """Bytes at the beginning of a packed record that all views of a tile have in common."""
        order = [field.shared for field in self.fields]
        assert order == sorted(order, reverse=True), "fields that views share come first"
        return self.part(Part.SHARED).record_bytes

    @cached_property
    def record_bytes(self) -> int:
        """Bytes of one packed record."""
        return sum(field.nbytes for field in self.fields)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The packed record as a NumPy structured type."""
        members: list[tuple[str, DTypeLike] | tuple[str, DTypeLike, tuple[int, ...]]] = [
            (field.name, field.dtype) if field.scalar else (field.name, field.dtype, (field.count,))
            for field in self.fields
        ]
        return np.dtype(members)

    def pack(self, fields: Fields) -> NDArray[np.uint8]:
        """Columns of n records to packed records uint8 [n, record_bytes]."""
        records = np.empty(len(fields[self.fields[0].name]), self.dtype)
        for field in self.fields:
            records[field.name] = fields[field.name]
        return records.view(np.uint8).reshape(len(records), self.record_bytes)

    def unpack(self, records: NDArray[np.uint8]) -> Fields:
        """Packed records uint8 [n, record_bytes] to their columns (views, not copies).

        Raises :class:`FormatError` for records of another length.
        """
        if records.ndim != 2 or records.shape[1] != self.record_bytes or records.dtype != np.uint8:
            raise FormatError(
                f"expected records uint8 [n, {self.record_bytes}], got {records.dtype} {list(records.shape)}"
            )
        columns = np.ascontiguousarray(records).reshape(-1).view(self.dtype)
        return {field.name: columns[field.name] for field in self.fields}


@cache
def record_layout(columns: tuple[Column, ...]) -> RecordLayout:
    """The layout of these fields; one object for equal ones, so that it is computed once."""
    return RecordLayout(columns)
