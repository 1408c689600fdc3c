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
    with np.errstate(over="ignore"):  # a difference beyond float32 is infinite, and refused as a span
        span = span_ceil16(largest - values[:, -1])
    fields: Fields = {
        "topk_max": largest.astype("<f4"),
        "lse": log_sum_exp(logits).astype("<f4"),
        "topk_span": span,
        "topk_index": order.astype(f"<u{codec.index_bits // 8}"),
        "topk_value": quantise(largest[:, None] - values, span),
    }
    if codec.tail_rank:
        fields |= sketch_tail(logits, codec, basis)
    return {field.name: fields[field.name] for field in RecordLayout(codec).fields}


def quantise(below: NDArray[np.float32], span: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Distances [n, K] below the largest logit to the nearest of 256 levels between 0 and ``span`` [n]."""
    wide = span.astype(np.float32)
    scale = np.zeros_like(wide)
    np.divide(np.float32(VALUE_LEVELS), wide, out=scale, where=wide > 0)
    levels: NDArray[np.float32] = np.rint(below * scale[:, None])
    return np.clip(levels, 0, VALUE_LEVELS).astype(np.uint8)


def sketch_tail(logits: NDArray[np.float32], codec: CodecSection, basis: TailBasis) -> Fields:
    """Logits [n, C] to their tail coefficients, in units of the step."""
    with np.errstate(over="ignore", invalid="ignore"):
        coef = np.rint((logits - basis.mean) @ basis.basis.T / np.float32(codec.tail_step))
    if not np.isfinite(coef).all():
        raise DataError(f"logits up to {np.abs(logits).max():.3g} overflow float32 in the tail basis")
    return split_coefficients(coef, codec)


def split_coefficients(coef: NDArray[np.float32], codec: CodecSection) -> Fields:
    """Rounded coefficients [n, r] saturated into their int16 and int8 columns."""
    wide, narrow = coef[:, : codec.tail_wide], coef[:, codec.tail_wide :]
    return {
        "tail_coef_wide": np.clip(wide, -32767, 32767).astype("<i2"),
        "tail_coef": np.clip(narrow, -127, 127).astype("i1"),
    }


def span_ceil16(span: NDArray[np.float32]) -> NDArray[np.float16]:
    """The smallest float16 that is not below ``span`` >= 0, so that no value saturates."""
    if span.size and float(span.max()) > MAX_SPAN:
        raise DataError(f"logits span {float(span.max()):.3g}, more than float16 holds: is the head trained?")
    rounded = span.astype(np.float16)
    # Positive floats are ordered like their bits: one more is the next float, subnormal ones included.
    bits = rounded.view(np.uint16) + (rounded < span)
    return bits.astype(np.uint16).view(np.float16)


def log_sum_exp(logits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Row-wise log-sum-exp."""
    largest = logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # a logit infinitely far below the largest adds nothing
        summed = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    return cast("NDArray[np.floating[Any]]", summed)


def decode(records: NDArray[np.uint8], codec: CodecSection, basis: TailBasis) -> NDArray[np.float32]:
    """Packed records uint8 [n, record_bytes] to dense logits float32 [n, C]. Invalid records give NaN.

    Raises :class:`FormatError` for records that are not of this codec.
    """
    fields = unpack(records, codec)
    index = fields["topk_index"].astype(np.int64)
    if index.size and index.max() >= basis.mean.size:
        raise FormatError(f"a record names class {index.max()} of {basis.mean.size}: it is of another cache")
    values = top_values(fields)
    # No class outside the top K can exceed the K-th logit, whatever the sketch says.
    dense = np.minimum(tail_sketch(fields, codec, basis), kth_logit(fields)[:, None])
    np.put_along_axis(dense, index, values, axis=1)
    return dense


def kth_logit(fields: Fields) -> NDArray[np.float32]:
    """The smallest stored logit [n]: the ceiling of the tail."""
    return fields["topk_max"].astype(np.float32) - fields["topk_span"].astype(np.float32)


def top_values(fields: Fields) -> NDArray[np.float32]:
    """The K stored logits [n, K], largest first."""
    # Divided first, so that the last level is exactly the span and the K-th logit exactly the tail's ceiling.
    fraction = fields["topk_value"].astype(np.float32) / np.float32(VALUE_LEVELS)
    below = fields["topk_span"].astype(np.float32)[:, None] * fraction
    return fields["topk_max"].astype(np.float32)[:, None] - below


def tail_sketch(fields: Fields, codec: CodecSection, basis: TailBasis) -> NDArray[np.float32]:
    """What the sketch says about every class: [n, C], or [1, C] where it is the mean alone."""
    if not codec.tail_rank:
        return basis.mean[None]
    coef = tail_coefficients(fields) * np.float32(codec.tail_step)
    return basis.mean + cast("NDArray[np.float32]", coef @ basis.basis)


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
