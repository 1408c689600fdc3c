"""What a setting of the codec costs and loses, measured on logits that fitted nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.sketch import Fitted, fit_sketch
from cache_builder.format.arrays import compressed_size
from cache_builder.format.codecs import Codec
from cache_builder.format.codecs.record import Field
from cache_builder.format.kept import KD_TEMPERATURES
from cache_builder.format.manifest import RatePoint
from cache_builder.format.probabilities import softmax

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
# Pairs that bytes are measured on, and the first of them for distortion.
_STORED, _MEASURED = 2048, 768
_MOST_VALUES = 2**23
"""Logits that distortion is measured on at most: there are many copies of them."""
_CHUNK_ROWS = 4096
# A student half-way between knowing nothing and the teacher.
_LEARNED = 0.5
_STANDARDISED_TEMPERATURE = 2.0
_TAIL_FROM, _TAIL_WEIGHT = 10, 2.0
_ROUNDED = 2.0**-23


@dataclass(frozen=True)
class Held:
    """Held-out logits and what is computed of them once."""

    logits: NDArray[np.float32]
    probabilities: tuple[NDArray[np.float32], ...]
    """softmax(logits / T) of the measured part, for each temperature."""
    student: NDArray[np.float32]
    """Logits of the half-trained student, [measured, C]."""
    gradients: tuple[NDArray[np.float32], ...]
    """Of the losses, with the live logits as teacher."""

    variance: float
    """Sum of squares of the measured logits around their class means."""

    @classmethod
    def of(cls, logits: NDArray[np.float32], views: int = 1) -> Held:
        """Prepare held-out logits [pairs, C], so many consecutive ones of a sample."""
        count = min(_MEASURED, _MOST_VALUES // logits.shape[1])
        live = logits[: count // views * views or views]
        mean = logits.mean(axis=0, dtype=np.float64).astype(np.float32)
        student = mean + np.float32(_LEARNED) * (live - mean)
        probabilities = tuple(softmax(live / np.float32(t)) for t in TEMPERATURES)
        # Less than float32 can tell is no variance.
        least = float(np.square(live, dtype=np.float64).sum()) * _ROUNDED**2
        variance = max(least, float(np.square(live - mean, dtype=np.float64).sum()))
        stored = logits[: _STORED // views * views or views]
        return cls(stored, probabilities, student, gradients(student, live), variance)


def measure(
    fitted: Fitted, held: Held, top_k: int, rank: int, tail_step: float, value_step: float
) -> RatePoint:
    """Fit on the one half, measure on the other."""
    codec = fit_sketch(fitted, top_k, rank, tail_step, value_step, held.logits[:_MEASURED])
    return measured_point(codec, held, (top_k, rank, tail_step, value_step))


def measured_point(
    codec: Codec[Any], held: Held, setting: tuple[int, int, float, float], views: int = 1
) -> RatePoint:
    """What a codec costs and loses.

    ``setting``: K, rank, step of the coefficients, step of the values. ``views``: so many consecutive logits
    are of one sample.
    """
    packed = codec.pack(codec.encode(held.logits, views))
    live = held.logits[: len(held.student)]
    decoded = codec.decode(codec.unpack(packed[: len(live)]))
    cosines = gradient_cosines(held, decoded)
    squared = np.square(decoded - live, dtype=np.float64)
    top_k, rank, tail_step, value_step = setting
    return RatePoint(
        top_k=top_k,
        tail_rank=rank,
        tail_step=tail_step,
        value_step=value_step,
        bytes_per_view=_shortened(stored_bytes(packed, codec, views)),
        tv=total_variation(held, decoded),
        gradient_cosine=min(cosines),
        logit_error=_shortened(float(np.sqrt(squared.mean()))),
        lost=_shortened(float(squared.sum()) / held.variance) if held.variance else 0.0,
        kd_cosines=cosines[: len(KD_TEMPERATURES)],
    )


def stored_bytes(packed: NDArray[np.uint8], codec: Codec[Any], views: int = 1) -> float:
    """Bytes of a record on disk, in chunks of the usual 4,096 rows, from records [n, record_bytes].

    What a chunk takes beside its records (headers, the tables of the entropy coder) is told by half of the
    records: fewer than a chunk of them would seem a tenth larger than they are.
    """
    fields = codec.unpack(packed)
    return sum(
        _field_bytes(codec, field, fields[field.name][::views]) / views
        if field.shared
        else _field_bytes(codec, field, fields[field.name])
        for field in codec.layout.fields
    )


def _field_bytes(codec: Codec[Any], field: Field, column: NDArray[Any]) -> float:
    """Bytes of a row of a column [n, ...]."""
    if field.coded:
        return codec.coded_size(field.name, column) / max(1, len(column))
    return column_bytes(column, field)


def column_bytes(column: NDArray[Any], field: Field) -> float:
    """Bytes of a row of a column [n, ...] under the store's compressor, in chunks of the usual rows."""
    whole = compressed_size(column, field)
    if not 1 < len(column) < _CHUNK_ROWS:
        return whole / max(1, len(column))
    half = len(column) // 2
    by_row = (whole - compressed_size(column[:half], field)) / (len(column) - half)
    return (whole + by_row * (_CHUNK_ROWS - len(column))) / _CHUNK_ROWS


def total_variation(held: Held, decoded: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Mean of half the L1 distance of the softmaxes, at T = 1, 2, 4 and 8."""
    found = [
        _shortened(float(np.abs(softmax(decoded / np.float32(t)) - live).sum(axis=1).mean()) / 2)
        for t, live in zip(TEMPERATURES, held.probabilities, strict=True)
    ]
    return found[0], found[1], found[2], found[3]


def gradient_cosines(held: Held, decoded: NDArray[np.float32]) -> tuple[float, ...]:
    """Of each of :func:`gradients`, between the student's from decoded and from live logits."""
    ours = gradients(held.student, decoded)
    return tuple(_shortened(_cosine(a, b), 6) for a, b in zip(ours, held.gradients, strict=True))


def gradients(student: NDArray[np.float32], teacher: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Of KD at T = 1 and 4, KD on standardised logits, the squared error and the tail, up to factors.

    The extremes of the field: a loss looks at the largest probabilities, at all logits alike, at the shape
    of the whole, or at what lies below the largest. Standardised (Sun et al., 2403.01427): with the student's
    own statistics taken as constants.
    """
    kd = tuple(softmax(student / np.float32(t)) - softmax(teacher / np.float32(t)) for t in KD_TEMPERATURES)
    z, t = np.float32(_STANDARDISED_TEMPERATURE), teacher
    standardised = softmax(_standard(student) * z) - softmax(_standard(t) * z)
    return (*kd, standardised, student - teacher, _tail_gradient(student, teacher))


def _tail_gradient(student: NDArray[np.float32], teacher: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the tail-aware divergence (2602.20816) with k = 10 and beta = 2, the hardest of all losses to keep.

    It renormalises the classes below the teacher's ten largest, samples weighted by their mass there.
    """
    head = min(_TAIL_FROM, teacher.shape[1] - 1)
    beyond = np.ones(teacher.shape, bool)
    np.put_along_axis(beyond, np.argpartition(-teacher, head - 1, axis=1)[:, :head], False, axis=1)
    p, q = softmax(teacher), softmax(student)
    mass = np.where(beyond, p, 0).sum(axis=1, keepdims=True)
    rest_p, rest_q = (softmax(np.where(beyond, logits, -np.inf)) for logits in (teacher, student))
    weight = np.float32(_TAIL_WEIGHT) * mass / max(float(mass.mean()), 1e-30)
    bucketed = np.where(beyond, q - mass * rest_q, q - p)
    gradient: NDArray[np.float32] = bucketed + weight * (rest_q - rest_p)
    return gradient


def _standard(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = logits - logits.mean(axis=1, keepdims=True)
    scaled: NDArray[np.float32] = centred / (centred.std(axis=1, keepdims=True) + np.float32(1e-7))
    return scaled


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.vdot(a, b)) / lengths if lengths else 1.0


def _shortened(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")
