"""Calibration: fit the tail sketch to the teacher's own logits.

Fixed defaults for K and rank here; the step follows from the logits' scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import codec as numpy_codec
from cache_builder.format.codec import no_tail
from cache_builder.format.layout import index_bits
from cache_builder.format.manifest import CalibrationSection, CodecSection, TailBasis
from cache_builder.views.philox import uniforms

CALIBRATION_PAIRS = 4096
_CALIBRATION_STREAM = 1

# Up to this many classes an exact record is smaller than a sketch would be.
EXACT_UP_TO = 32
DEFAULT_TOP_K = 5
DEFAULT_TAIL_RANK = 64
# Design numbers (468 classes): a step of one logit cost .001 of gradient cosine and saved 6 bytes of 54.
MAX_TAIL_STEP = 1.0
# ... but a teacher of small logits needs a small step: quantisation noise at most this part of their spread.
MAX_NOISE = 0.05
# A coefficient column is int16 when the calibration's largest value, with this margin, exceeds int8.
_WIDE_MARGIN = 1.5
_INT8_MAX = 127


@dataclass(frozen=True)
class Calibration:
    """The codec a cache will use, its basis, and how well it did on the calibration logits."""

    codec: CodecSection
    basis: TailBasis
    section: CalibrationSection


def default_top_k(classes: int) -> int:
    """K where the user did not say: everything for few classes, else 5."""
    return classes if classes <= EXACT_UP_TO else DEFAULT_TOP_K


def default_tail_rank(classes: int) -> int:
    """r where the user did not say."""
    return min(DEFAULT_TAIL_RANK, classes - 1)


def pair_count(samples: int, views: int) -> int:
    """Number of calibration pairs."""
    return min(samples * views, CALIBRATION_PAIRS)


def calibration_pairs(samples: int, views: int, seed: int) -> list[tuple[int, int]]:
    """(view, row) pairs: one drawn from each of min(N·V, 4096) equal strata, so all differ."""
    total = samples * views
    count = pair_count(samples, views)
    offsets = uniforms(seed, 0, np.arange(count), 1, _CALIBRATION_STREAM)[:, 0]
    bounds = [total * index // count for index in range(count + 1)]
    flat = [low + int(u * (high - low)) for low, high, u in zip(bounds, bounds[1:], offsets, strict=False)]
    return [(index % views, index // views) for index in flat]


def exact(classes: int) -> Calibration:
    """K = C: nothing to fit."""
    codec = CodecSection(
        top_k=classes, index_bits=index_bits(classes), tail_rank=0, tail_wide=0, tail_step=0.0
    )
    return Calibration(codec, no_tail(classes), CalibrationSection(pairs=0, logit_std=0.0, tail_error=0.0))


def fit(logits: NDArray[np.float32], top_k: int, tail_rank: int) -> Calibration:
    """Fit mean, basis and step to calibration logits [pairs, C].

    The basis is a PCA; rows that the pairs cannot span are zero. Deterministic for the same logits.
    """
    pairs, classes = logits.shape
    mean = logits.mean(axis=0, dtype=np.float64)
    centred = logits - mean
    components = np.zeros((tail_rank, classes))
    spanned = min(tail_rank, pairs - 1)
    components[:spanned] = _principal_components(centred, spanned)
    std = float(np.sqrt(np.square(centred).mean()))
    step = tail_step(std, classes, tail_rank)
    basis = TailBasis(mean.astype(np.float32), components.astype(np.float32))
    largest = np.abs(centred @ components.T).max(axis=0) * (_WIDE_MARGIN / step)
    wide = int(np.flatnonzero(largest > _INT8_MAX).max(initial=-1)) + 1
    codec = CodecSection(
        top_k=top_k, index_bits=index_bits(classes), tail_rank=tail_rank, tail_wide=wide, tail_step=step
    )
    decoded = numpy_codec.decode(
        numpy_codec.pack(numpy_codec.encode(logits, codec, basis), codec), codec, basis
    )
    error = float(np.sqrt(np.square(decoded - logits, dtype=np.float64).mean()))
    return Calibration(codec, basis, CalibrationSection(pairs=pairs, logit_std=std, tail_error=error))


def tail_step(logit_std: float, classes: int, rank: int) -> float:
    """Step of the coefficients: uniform noise of step/sqrt(12) in r of C directions, bounded as stated above.

    Rounded to three significant digits, so that a last-bit difference in the logits cannot change it.
    """
    bound = MAX_NOISE * logit_std * math.sqrt(12 * classes / rank)
    return float(f"{max(min(MAX_TAIL_STEP, bound), 1e-6):.3g}")


def _principal_components(centred: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """The leading eigenvectors [rank, C] of the covariance, signs fixed by their largest entry.

    Through the smaller of the two Gram matrices, so that 21,000 classes cost no 21,000-square matrix.
    """
    pairs, classes = centred.shape
    if classes <= pairs:
        _, vectors = np.linalg.eigh(centred.T @ centred)
        components = vectors[:, ::-1][:, :rank].T
    else:
        _, vectors = np.linalg.eigh(centred @ centred.T)
        components, _ = np.linalg.qr(centred.T @ vectors[:, ::-1][:, :rank])
        components = components.T
    signs = np.sign(np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1))
    oriented: NDArray[np.float64] = components * np.where(signs == 0, 1, signs)
    return oriented
