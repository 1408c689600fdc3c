"""The record of codec ``topk-tail`` in NumPy: format version 1, and K = C in version 2.

K class ids with 8-bit logits between the largest and the K-th, r tail coefficients, the log-sum-exp.
FORMAT.md states the same in prose.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import DataError
from cache_builder.format.fields import Fields, log_sum_exp, stored_first
from cache_builder.format.layout import RecordLayout
from cache_builder.format.manifest import CodecSection, TailBasis

VALUE_LEVELS = 255
MAX_SPAN = float(np.finfo(np.float16).max)


def encode(logits: NDArray[np.float32], codec: CodecSection, basis: TailBasis) -> Fields:
    """Logits float32 [n, C] to the columns of n records.

    Raises :class:`DataError` for a span (largest minus K-th logit) beyond float16.
    """
    order = stored_first(logits, codec.top_k)
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


def decode(
    fields: Fields, index: NDArray[np.int64], codec: CodecSection, basis: TailBasis
) -> NDArray[np.float32]:
    """Columns to dense logits float32 [n, C]; ``index``: the K class ids."""
    # No class outside the top K can exceed the K-th logit, whatever the sketch says.
    dense = np.minimum(tail_sketch(fields, codec, basis), kth_logit(fields)[:, None])
    np.put_along_axis(dense, index, top_values(fields), axis=1)
    return dense


def is_usable(fields: Fields) -> NDArray[np.bool_]:
    """Whether each of n records [n] is of finite logits whose span float16 holds."""
    usable: NDArray[np.bool_] = np.isfinite(fields["lse"]) & np.isfinite(fields["topk_span"])
    return usable


def saturated(fields: Fields) -> int:
    """How many coefficients lie at the end of their type."""
    ends = (("tail_coef", 127), ("tail_coef_wide", 32767))
    return sum(int((np.abs(fields[n].astype(np.int32)) == end).sum()) for n, end in ends if n in fields)


def invalidate(columns: NDArray[Any]) -> None:
    """Make packed columns say: this sample could not be read."""
    columns["topk_max"] = np.nan
    columns["lse"] = np.nan


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
