"""What other systems keep of a teacher's output, and what can be rebuilt from it.

From the facts of their formats. Bytes are those of the teacher's output alone, after each one's own
compression; what they store to replay a view comes on top (kdcache draws it). All of them keep probabilities
or log-probabilities of K classes; the rest of the mass is spread evenly, as their own readers do.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Scope
from cache_builder.calibration.fidelity import column_bytes, stored_bytes
from cache_builder.format.codecs import Codec
from cache_builder.format.codecs.fields import log_sum_exp, stored_first
from cache_builder.format.codecs.record import Field
from cache_builder.format.manifest import CodecRequest

Floats = NDArray[np.float32]
D = TypeVar("D", bound=np.generic)
CHUNK = 4096
_VIEWS_PER_FILE = 8
"""ml-dr keeps all views of an image in one file: more of them compress a little better."""


@dataclass(frozen=True)
class Encoded:
    """One encoding of logits [n, C]."""

    name: str
    bytes_per_view: float
    decoded: Floats
    """Logits [n, C]."""
    header_bytes: int = 0
    """What is kept once per cache, before compression."""
    settings: str = ""
    """What a record holds, in a few words, where its name does not say so."""


def top_log_probs(logits: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """Class ids and log-probabilities [n, K] at T = 1, largest first."""
    index = stored_first(logits, count)
    values = np.take_along_axis(logits, index, axis=1) - log_sum_exp(logits.astype(np.float64))[:, None]
    return index, values.astype(np.float32)


def even_tail(index: NDArray[np.int64], log_probs: Floats, classes: int) -> Floats:
    """Log-probabilities [n, C]: the K given, what is left spread over the other classes."""
    rest = np.maximum(1 - np.exp(log_probs.astype(np.float64)).sum(axis=1, keepdims=True), 1e-12)
    dense = np.repeat(np.log(rest / (classes - index.shape[1])), classes, axis=1).astype(np.float32)
    np.put_along_axis(dense, index, log_probs, axis=1)
    return dense


def tinyvit(logits: Floats, k: int) -> Encoded:
    """TinyViT (Wu et al., ECCV 2022): fp16 probabilities and int16 ids, not compressed."""
    index, values = top_log_probs(logits, k)
    stored = np.exp(values).astype(np.float16).astype(np.float32)
    return Encoded(f"TinyViT, K={k}", 4.0 * k, even_tail(index, _log(stored), logits.shape[1]))


def fkd(logits: Floats, half: bool) -> Encoded:
    """FKD (Shen & Xing, ECCV 2022): the five largest, probabilities and ids of one type."""
    index, values = top_log_probs(logits, 5)
    stored = np.exp(values).astype(np.float16 if half else np.float32).astype(np.float32)
    name = f"FKD, K=5, {'fp16' if half else 'fp32'}"
    return Encoded(name, 20.0 if half else 40.0, even_tail(index, _log(stored), logits.shape[1]))


def ml_dr(logits: Floats, k: int = 10) -> Encoded:
    """Dataset reinforcement (Faghri et al., ICCV 2023): lists of floats and ids, pickled per image, gzip."""
    index, values = top_log_probs(logits, k)
    probabilities = np.exp(values)
    size = 0
    for start in range(0, len(logits), _VIEWS_PER_FILE):
        part = slice(start, start + _VIEWS_PER_FILE)
        pairs = list(zip(probabilities[part].tolist(), index[part].tolist(), strict=True))
        size += len(gzip.compress(pickle.dumps(pairs)))
    return Encoded(f"ml-dr, K={k}", size / len(logits), even_tail(index, values, logits.shape[1]))


def megatron(logits: Floats, k: int) -> Encoded:
    """Megatron-LM's offline distillation (PR 5019): 16-bit log-probabilities, 24-bit ids, zstd of tensors."""
    index, values = top_log_probs(logits, k)
    half = values.astype(np.float16)
    size = 0
    for start in range(0, len(logits), CHUNK):
        part = slice(start, start + CHUNK)
        ids = index[part].astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
        size += len(Zstd(3).encode(np.ascontiguousarray(half[part]))) + len(Zstd(3).encode(ids.tobytes()))
    decoded = even_tail(index, half.astype(np.float32), logits.shape[1])
    return Encoded(f"Megatron-LM, K={k}", size / len(logits), decoded)


def distillkit(logits: Floats, k: int, exact: int = 3) -> Encoded:
    """DistillKit: bit-packed ids, a few exact bf16 log-probabilities, the others a curve over their rank.

    The curve has the terms 1, t, t^2 and sqrt(t) of the rank t, in bf16.
    """
    index, values = top_log_probs(logits, k)
    classes = logits.shape[1]
    t = np.arange(k - exact, dtype=np.float64)
    terms = np.stack([np.ones_like(t), t, t**2, np.sqrt(t)])
    weights = _bf16((values[:, exact:] @ np.linalg.pinv(terms)).astype(np.float32))
    kept = np.concatenate([_bf16(values[:, :exact]), (weights @ terms).astype(np.float32)], axis=1)
    ids = -(-k * int(np.ceil(np.log2(classes))) // 8)
    return Encoded(f"DistillKit, K={k}", ids + 2 * exact + 2 * len(terms), even_tail(index, kept, classes))


def dense_half(logits: Floats) -> Encoded:
    """All logits in fp16 under zstd: what a dump without thought takes, and nearly the live teacher."""
    half = logits.astype(np.float16)
    size = sum(len(Zstd(3).encode(np.ascontiguousarray(part))) for part in _chunks(half))
    return Encoded("all logits, fp16", size / len(logits), half.astype(np.float32))


def dense_bf16(logits: Floats) -> Encoded:
    """All logits in bfloat16: what a teacher that computes in bfloat16 says at best."""
    halves = _bf16(logits).view("<u2")[:, 1::2]
    size = sum(len(Zstd(3).encode(np.ascontiguousarray(part))) for part in _chunks(halves))
    return Encoded("all logits, bf16", size / len(logits), _bf16(logits))


def calibrated(
    name: str, fit: Floats, logits: Floats, request: CodecRequest, codec_name: str = "class-sketch"
) -> Encoded:
    """Ours, each view alone, calibrated on ``fit`` for what is asked for; bytes in chunks of 4,096."""
    codec = calibrate.fit(fit, request, codec_name).codec
    packed = codec.pack(codec.encode(logits))
    return Encoded(name, on_disk(packed, codec), codec.decode(codec.unpack(packed)), *_header(codec))


def jointly(name: str, fit: Floats, logits: Floats, request: CodecRequest) -> Encoded:
    """Ours, of logits [N, V, C] and [M, V, C]: what views share is stored once, V-th parts of it counted."""
    views, classes = logits.shape[1:]
    codec = calibrate.fit(fit.reshape(-1, classes), request, "joint-sketch", Scope(views)).codec
    packed = codec.pack(codec.encode(logits.reshape(-1, classes), views))
    decoded = codec.decode(codec.unpack(packed)).reshape(logits.shape)
    return Encoded(name, stored_bytes(packed, codec, views), decoded, *_header(codec))


def _header(codec: Codec[Any]) -> tuple[int, str]:
    """Bytes that a cache keeps once, and the settings in words."""
    return sum(array.nbytes for array in codec.arrays.values()), codec.settings.described(codec.width)


def on_disk(packed: NDArray[np.uint8], codec: Codec[Any]) -> float:
    """Bytes of a record of these [n, record_bytes] as a store's columns hold them."""
    return sum(len(part) * stored_bytes(part, codec) for part in _chunks(packed)) / len(packed)


def chunked_bytes(column: NDArray[Any], field: Field) -> float:
    """Bytes of a row of a column [n, ...] in chunks of 4,096."""
    return sum(len(part) * column_bytes(part, field) for part in _chunks(column)) / len(column)


def _chunks(array: NDArray[D]) -> Iterator[NDArray[D]]:
    return (array[start : start + CHUNK] for start in range(0, len(array), CHUNK))


def _log(probabilities: Floats) -> Floats:
    # What underflowed in half precision is as small as its smallest number.
    logs: Floats = np.log(np.maximum(probabilities, np.float32(6e-8)))
    return logs


def _bf16(values: Floats) -> Floats:
    """Rounded to bfloat16, half to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)
