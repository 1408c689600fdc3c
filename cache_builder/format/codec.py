"""Logits to records and back in NumPy: the reference that every other implementation is tested against.

A manifest's codec section says which of the two records it is: ``topk-tail`` (version 1, and caches that
store every class) or ``class-sketch`` (version 2). Logits are raw (before softmax), in natural units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import class_sketch, topk_tail
from cache_builder.format.errors import DataError, FormatError
from cache_builder.format.fields import Fields, log_sum_exp
from cache_builder.format.layout import RecordLayout
from cache_builder.format.manifest import Codec, CodecSection, TailBasis
from cache_builder.format.masking import unmasked

__all__ = [
    "Fields",
    "Stored",
    "decode",
    "encode",
    "invalid_fields",
    "is_usable",
    "log_sum_exp",
    "no_tail",
    "pack",
    "saturated",
    "stored",
    "unpack",
]


class Stored(NamedTuple):
    """The classes that n records hold one by one."""

    classes: NDArray[np.int64]
    """Class ids [n, K], largest logit first."""
    values: NDArray[np.float32]
    """Their logits [n, K]."""
    lse: NDArray[np.float32]
    """Log-sum-exp of all logits [n] at temperature 1; NaN for an invalid record."""


def no_tail(classes: int) -> TailBasis:
    """The basis of a cache that stores every class: rank 0."""
    return TailBasis(np.zeros(classes, np.float32), np.zeros((0, classes), np.float32))


def encode(logits: NDArray[np.float32], codec: Codec, basis: TailBasis) -> Fields:
    """Logits float32 [n, C] to the columns of n records.

    Equal logits are ordered by class id. Raises :class:`DataError` for logits that are not finite or that the
    codec's number formats cannot hold.
    """
    logits = unmasked(logits, codec, basis)
    if not np.isfinite(logits).all():
        raise DataError(
            "cannot encode non-finite logits, nor ordinary ones of a class that the cache masks throughout"
        )
    if isinstance(codec, CodecSection):
        return topk_tail.encode(logits, codec, basis)
    return class_sketch.encode(logits, codec, basis)


def decode(records: NDArray[np.uint8], codec: Codec, basis: TailBasis) -> NDArray[np.float32]:
    """Packed records uint8 [n, record_bytes] to dense logits float32 [n, C]. Invalid records give NaN.

    Raises :class:`FormatError` for records that are not of this codec.
    """
    fields = unpack(records, codec)
    index = checked_index(fields, codec, basis)
    if isinstance(codec, CodecSection):
        return topk_tail.decode(fields, index, codec, basis)
    return class_sketch.decode(fields, index, codec, basis)


def stored(fields: Fields, codec: Codec, basis: TailBasis) -> Stored:
    """The K classes of every record with their logits, without decoding the others."""
    index = checked_index(fields, codec, basis)
    if isinstance(codec, CodecSection):
        return Stored(index, topk_tail.top_values(fields), fields["lse"])
    values = class_sketch.top_values(fields, index, codec, basis)
    return Stored(index, values, class_sketch.lse(fields, values))


def checked_index(fields: Fields, codec: Codec, basis: TailBasis) -> NDArray[np.int64]:
    """Class ids [n, K]; :class:`FormatError` for one that there is not."""
    index = fields["topk_index"].astype(np.int64)
    if index.size and index.max() >= basis.mean.size:
        raise FormatError(f"a record names class {index.max()} of {basis.mean.size}: it is of another cache")
    return index if isinstance(codec, CodecSection) else class_sketch.class_ids(index, codec, basis)


def is_usable(fields: Fields, codec: Codec) -> NDArray[np.bool_]:
    """Whether each record [n] is of finite logits that the codec can hold. False for invalid records."""
    return topk_tail.is_usable(fields) if isinstance(codec, CodecSection) else class_sketch.is_usable(fields)


def saturated(fields: Fields, codec: Codec) -> int:
    """How many numbers lie at the end of their type, so that they may have been cut off."""
    if isinstance(codec, CodecSection):
        return topk_tail.saturated(fields)
    return class_sketch.saturated(fields, codec)


def invalid_fields(count: int, codec: Codec) -> Fields:
    """Columns of ``count`` records that say: this sample could not be read. They decode to NaN."""
    columns = np.zeros(count, RecordLayout(codec).dtype)
    (topk_tail if isinstance(codec, CodecSection) else class_sketch).invalidate(columns)
    return {name: columns[name] for name in columns.dtype.names or ()}


def pack(fields: Fields, codec: Codec) -> NDArray[np.uint8]:
    """Columns to packed records uint8 [n, record_bytes]."""
    layout = RecordLayout(codec)
    records = np.empty(len(fields["topk_index"]), layout.dtype)
    for field in layout.fields:
        records[field.name] = fields[field.name]
    return records.view(np.uint8).reshape(len(records), layout.record_bytes)


def unpack(records: NDArray[np.uint8], codec: Codec) -> Fields:
    """Packed records uint8 [n, record_bytes] to their columns (views, not copies)."""
    layout = RecordLayout(codec)
    if records.ndim != 2 or records.shape[1] != layout.record_bytes or records.dtype != np.uint8:
        raise FormatError(
            f"expected records uint8 [n, {layout.record_bytes}], got {records.dtype} {list(records.shape)}"
        )
    columns = np.ascontiguousarray(records).reshape(-1).view(layout.dtype)
    return {field.name: columns[field.name] for field in layout.fields}
