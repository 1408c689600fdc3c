"""The record codec in NumPy: the reference that every other implementation is tested against.

A logit vector of C classes becomes K class ids with 8-bit logits, r tail coefficients and the
log-sum-exp. FORMAT.md states the same in prose. Logits are raw (before softmax), in natural units.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import DataError, FormatError
from cache_builder.format.layout import RecordLayout
from cache_builder.format.manifest import CodecSection, TailBasis

Fields = dict[str, NDArray[Any]]
"""Field name -> array [n] or [n, count]: the columns of n records."""

VALUE_LEVELS = 255
MAX_SPAN = float(np.finfo(np.float16).max)


def no_tail(classes: int) -> TailBasis:
    """The basis of a cache that stores every class: rank 0."""
    return TailBasis(np.zeros(classes, np.float32), np.zeros((0, classes), np.float32))


def encode(logits: NDArray[np.float32], codec: CodecSection, basis: TailBasis) -> Fields:
    """Logits float32 [n, C] to the columns of n records.

    Equal logits are ordered by class id. Raises :class:`DataError` for non-finite logits and for a span
    (largest minus K-th logit) beyond float16.
    """
    if not np.isfinite(logits).all():
        raise DataError("cannot encode non-finite logits")
    order = np.argsort(-logits, axis=1, kind="stable")[:, : codec.top_k]
    values = np.take_along_axis(logits, order, axis=1)
    largest = values[:, 0]
    span = span_ceil16(largest - values[:, -1])
    scale = np.where(span > 0, VALUE_LEVELS / np.maximum(span.astype(np.float32), 1e-30), 0)
    steps = np.rint((largest[:, None] - values) * scale[:, None])
    fields: Fields = {
        "topk_max": largest.astype("<f4"),
        "lse": log_sum_exp(logits).astype("<f4"),
        "topk_span": span,
        "topk_index": order.astype(f"<u{codec.index_bits // 8}"),
        "topk_value": np.clip(steps, 0, VALUE_LEVELS).astype("u1"),
    }
    if codec.tail_rank:
        coef = np.rint((logits - basis.mean) @ basis.basis.T / np.float32(codec.tail_step))
        fields |= split_coefficients(coef, codec)
    return {field.name: fields[field.name] for field in RecordLayout(codec).fields}


def split_coefficients(coef: NDArray[np.float32], codec: CodecSection) -> Fields:
    """Rounded coefficients [n, r] saturated into their int16 and int8 columns."""
    wide, narrow = coef[:, : codec.tail_wide], coef[:, codec.tail_wide :]
    return {
        "tail_coef_wide": np.clip(wide, -32767, 32767).astype("<i2"),
        "tail_coef": np.clip(narrow, -127, 127).astype("i1"),
    }


def span_ceil16(span: NDArray[np.float32]) -> NDArray[np.float16]:
    """The smallest float16 that is not below ``span``, so that no value saturates."""
    if span.size and float(span.max()) > MAX_SPAN:
        raise DataError(f"logits span {float(span.max()):.3g}, more than float16 holds: is the head trained?")
    rounded = span.astype(np.float16)
    return np.where(rounded < span, np.nextafter(rounded, np.float16(np.inf)), rounded)


def log_sum_exp(logits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Row-wise log-sum-exp."""
    largest = logits.max(axis=1, keepdims=True)
    summed = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    return cast("NDArray[np.floating[Any]]", summed)


def decode(records: NDArray[np.uint8], codec: CodecSection, basis: TailBasis) -> NDArray[np.float32]:
    """Packed records uint8 [n, record_bytes] to dense logits float32 [n, C]. Invalid records give NaN."""
    fields = unpack(records, codec)
    largest = fields["topk_max"].astype(np.float32)
    span = fields["topk_span"].astype(np.float32)
    sketch = np.broadcast_to(basis.mean, (len(records), basis.mean.size))
    if codec.tail_rank:
        coef = tail_coefficients(fields) * np.float32(codec.tail_step)
        sketch = basis.mean + coef @ basis.basis
    # No class outside the top K can exceed the K-th logit, whatever the sketch says.
    dense = np.minimum(sketch, (largest - span)[:, None]).astype(np.float32)
    values = top_values(fields)
    np.put_along_axis(dense, fields["topk_index"].astype(np.int64), values, axis=1)
    return dense


def top_values(fields: Fields) -> NDArray[np.float32]:
    """The K stored logits [n, K], largest first."""
    step = fields["topk_span"].astype(np.float32) / np.float32(VALUE_LEVELS)
    values = fields["topk_max"][:, None] - fields["topk_value"].astype(np.float32) * step[:, None]
    return cast("NDArray[np.float32]", values)


def tail_coefficients(fields: Fields) -> NDArray[np.float32]:
    """The r coefficients [n, r] in units of the step, wide ones first."""
    parts = [fields[name] for name in ("tail_coef_wide", "tail_coef") if name in fields]
    return np.concatenate(parts, axis=1).astype(np.float32)


def invalid_fields(count: int, codec: CodecSection) -> Fields:
    """Columns of ``count`` records that say: this sample could not be read. They decode to NaN."""
    columns = np.zeros(count, RecordLayout(codec).dtype)
    columns["topk_max"] = np.nan
    columns["lse"] = np.nan
    return {name: columns[name] for name in columns.dtype.names or ()}


def pack(fields: Fields, codec: CodecSection) -> NDArray[np.uint8]:
    """Columns to packed records uint8 [n, record_bytes]."""
    layout = RecordLayout(codec)
    records = np.empty(len(fields["lse"]), layout.dtype)
    for field in layout.fields:
        records[field.name] = fields[field.name]
    return records.view(np.uint8).reshape(len(records), layout.record_bytes)


def unpack(records: NDArray[np.uint8], codec: CodecSection) -> Fields:
    """Packed records uint8 [n, record_bytes] to their columns (views, not copies)."""
    layout = RecordLayout(codec)
    if records.ndim != 2 or records.shape[1] != layout.record_bytes or records.dtype != np.uint8:
        raise FormatError(
            f"expected records uint8 [n, {layout.record_bytes}], got {records.dtype} {list(records.shape)}"
        )
    columns = np.ascontiguousarray(records).reshape(-1).view(layout.dtype)
    return {field.name: columns[field.name] for field in layout.fields}
