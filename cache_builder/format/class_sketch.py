"""The record of codec ``class-sketch`` in NumPy: format version 2. FORMAT.md states the same in prose.

Every logit is rebuilt from r small integers: their distance from what is usual for the teacher's best class.
The K largest are then put right one by one. What is usual is known from calibration (``centres``), so that a
coefficient costs some two bits less than its distance from the mean of all samples would.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import DataError
from cache_builder.format.fields import Fields, log_sum_exp_above, stored_first
from cache_builder.format.layout import RecordLayout
from cache_builder.format.manifest import SketchSection, TailBasis

NIBBLE = 7
"""A packed coefficient lies in -7 .. 7; it is stored with 8 added."""
ORDER_GAP = 8
"""Decoded neighbours of the top K differ by at least this part (1/8) of the value step."""


def encode(logits: NDArray[np.float32], codec: SketchSection, basis: TailBasis) -> Fields:
    """Logits float32 [n, C] to the columns of n records."""
    index = stored_first(logits, codec.top_k)
    values = np.take_along_axis(logits, index, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        coef = np.rint((logits - basis.mean) @ basis.basis.T / np.float32(codec.tail_step))
    if not np.isfinite(coef).all():
        raise DataError(f"logits up to {np.abs(logits).max():.3g} overflow float32 in the tail basis")
    fields: Fields = {
        "lse_above": log_sum_exp_above(logits).astype("<f2"),
        "topk_index": coded_index(index, codec, basis).astype(f"<u{codec.index_bits // 8}"),
        **split(coef - basis.centres[index[:, 0]].astype(np.float32), codec),
    }
    sketched = np.take_along_axis(sketch(fields, index[:, 0], codec, basis), index, axis=1)
    fields["topk_residual"] = residuals(values, sketched, codec)
    return {field.name: fields[field.name] for field in RecordLayout(codec).fields}


def coded_index(index: NDArray[np.int64], codec: SketchSection, basis: TailBasis) -> NDArray[np.integer[Any]]:
    """Class ids [n, K] as they are stored: the best one, and where the others stand in its usual order."""
    if codec.index_coding == "class":
        return index
    places = basis.places(codec.tail_step)[index[:, :1], index[:, 1:]]
    return np.concatenate([index[:, :1], places.astype(np.int64)], axis=1)


def class_ids(stored: NDArray[np.int64], codec: SketchSection, basis: TailBasis) -> NDArray[np.int64]:
    """The inverse: stored [n, K], all below C, to class ids [n, K]."""
    if codec.index_coding == "class":
        return stored
    others = basis.ranking(codec.tail_step)[stored[:, :1], stored[:, 1:]]
    return np.concatenate([stored[:, :1], others.astype(np.int64)], axis=1)


def residuals(
    values: NDArray[np.float32], sketched: NDArray[np.float32], codec: SketchSection
) -> NDArray[np.signedinteger[Any]]:
    """Live minus sketched logits [n, K] in value steps; what they decode to falls from left to right.

    Losses that rank classes would otherwise see two near ones in the wrong order.
    """
    step, limit = np.float32(codec.value_step), value_limit(codec)
    codes = np.rint((values - sketched) / step).clip(-limit, limit)
    gap = step / np.float32(ORDER_GAP)
    for k in range(1, codec.top_k):
        before = sketched[:, k - 1] + step * codes[:, k - 1]
        most = np.floor((before - gap - sketched[:, k]) / step)
        codes[:, k] = np.minimum(codes[:, k], most).clip(-limit, limit)
    return cast("NDArray[np.signedinteger[Any]]", codes.astype(f"<i{codec.value_bits // 8}"))


def value_limit(codec: SketchSection) -> int:
    """The largest residual, in value steps."""
    return int(2 ** (codec.value_bits - 1)) - 1


def split(coef: NDArray[np.float32], codec: SketchSection) -> Fields:
    """Rounded coefficients [n, r], saturated, in their int16, int8 and half-byte columns."""
    wide, rest = coef[:, : codec.tail_wide], coef[:, codec.tail_wide :]
    narrow, small = rest[:, : codec.tail_bytes], rest[:, codec.tail_bytes :]
    return {
        "tail_coef_wide": wide.clip(-32767, 32767).astype("<i2"),
        "tail_coef": narrow.clip(-127, 127).astype("i1"),
        "tail_coef_packed": pack_halves(small.clip(-NIBBLE, NIBBLE).astype("i1")),
    }


def pack_halves(coef: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Coefficients [n, p] in -7 .. 7 to bytes [n, ceil(p / 2)], the even ones in the low half."""
    even = np.pad(coef, ((0, 0), (0, coef.shape[1] % 2))) + np.int8(NIBBLE + 1)
    halves = even.astype(np.uint8)
    return cast("NDArray[np.uint8]", halves[:, ::2] | (halves[:, 1::2] << 4))


def unpack_halves(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """The inverse: bytes [n, ceil(count / 2)] to coefficients [n, count]."""
    halves = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), 2 * packed.shape[1])
    return (halves.astype(np.int8) - np.int8(NIBBLE + 1))[:, :count]


def coefficients(
    fields: Fields, best: NDArray[np.int64], codec: SketchSection, basis: TailBasis
) -> NDArray[np.float32]:
    """The r coefficients [n, r] in units of the step, the usual ones of the best class [n] added."""
    parts = [fields[name] for name in ("tail_coef_wide", "tail_coef") if name in fields]
    if "tail_coef_packed" in fields:
        parts.append(unpack_halves(fields["tail_coef_packed"], codec.tail_packed))
    return np.concatenate(parts, axis=1).astype(np.float32) + basis.centres[best].astype(np.float32)


def sketch(
    fields: Fields, best: NDArray[np.int64], codec: SketchSection, basis: TailBasis
) -> NDArray[np.float32]:
    """What the sketch says about every class [n, C]."""
    coef = coefficients(fields, best, codec, basis) * np.float32(codec.tail_step)
    return basis.mean + cast("NDArray[np.float32]", coef @ basis.basis)


def top_values(
    fields: Fields, index: NDArray[np.int64], codec: SketchSection, basis: TailBasis
) -> NDArray[np.float32]:
    """The K stored logits [n, K], largest first, without decoding the other classes."""
    coef = coefficients(fields, index[:, 0], codec, basis) * np.float32(codec.tail_step)
    columns = basis.basis.T
    sketched = np.stack([(coef * columns[ids]).sum(axis=1) + basis.mean[ids] for ids in index.T], axis=1)
    return _put_right(sketched, fields, codec)


def decode(
    fields: Fields, index: NDArray[np.int64], codec: SketchSection, basis: TailBasis
) -> NDArray[np.float32]:
    """Columns to dense logits float32 [n, C]; ``index``: the K class ids."""
    dense = sketch(fields, index[:, 0], codec, basis)
    top = _put_right(np.take_along_axis(dense, index, axis=1), fields, codec)
    # No class outside the top K reaches the K-th logit, whatever the sketch says.
    ceiling = top[:, -1:] - np.float32(codec.value_step / ORDER_GAP)
    dense = np.asarray(np.minimum(dense, ceiling), np.float32)
    np.put_along_axis(dense, index, top, axis=1)
    return dense


def _put_right(sketched: NDArray[np.float32], fields: Fields, codec: SketchSection) -> NDArray[np.float32]:
    # Not a number where the record is invalid, which makes every class so.
    invalid = fields["lse_above"].astype(np.float32)[:, None] * np.float32(0)
    residual = np.float32(codec.value_step) * fields["topk_residual"].astype(np.float32)
    return cast("NDArray[np.float32]", sketched + residual + invalid)


def lse(fields: Fields, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-sum-exp [n] on the scale of the decoded ``values`` [n, K]: exp(values - lse) are probabilities."""
    total: NDArray[np.float32] = values[:, 0] + fields["lse_above"].astype(np.float32)
    return total


def is_usable(fields: Fields) -> NDArray[np.bool_]:
    """Whether each of n records [n] is of finite logits."""
    usable: NDArray[np.bool_] = np.isfinite(fields["lse_above"])
    return usable


def saturated(fields: Fields, codec: SketchSection) -> int:
    """How many coefficients and residuals lie at the end of their type."""
    ends = {"tail_coef_wide": 32767, "tail_coef": 127, "topk_residual": value_limit(codec)}
    found = {name: fields[name] for name in ends if name in fields}
    count = sum(int((np.abs(column.astype(np.int32)) == ends[name]).sum()) for name, column in found.items())
    if "tail_coef_packed" in fields:
        small = unpack_halves(fields["tail_coef_packed"], codec.tail_packed)
        count += int((np.abs(small) == NIBBLE).sum())
    return count


def invalidate(columns: NDArray[Any]) -> None:
    """Make packed columns say: this sample could not be read."""
    columns["lse_above"] = np.nan
