"""Fitting the tail sketch: mean, basis and the usual coefficients of every class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.codecs.class_sketch import ClassSketch, ClassSketchSettings
from cache_builder.format.codecs.fields import stored_first
from cache_builder.format.codecs.sketched import INT8_MAX, INT16_MAX, NIBBLE, index_bits

# A class with n pairs gets n / (n + 1) of their mean: one pair of its own says half of what it seems to.
_SHRINKAGE = 1.0
# A column is stored in half bytes when at most this part of its coefficients would be cut off.
_CUT_OFF = 2e-4
_HALF_BYTE_STD = 2.2
# Wider types are chosen by the calibration's largest number, with this margin.
_MARGIN = 1.5
# The table of usual orders has C^2 entries of two bytes, in every reader.
RANKED_UP_TO = 2048
# Pairs whose largest residual decides the type of the residuals.
_LOOKED_AT = 2048


@dataclass(frozen=True)
class Fitted:
    """What every setting of the codec has in common: computed once for calibration logits [pairs, C]."""

    logits: NDArray[np.float32]
    mean: NDArray[np.float64]
    """[C]."""
    basis: NDArray[np.float64]
    """Principal components [most, C]; rows that the pairs cannot span are zero."""
    coef: NDArray[np.float64]
    """Coefficients of the pairs [pairs, most], in logits."""
    first: NDArray[np.int64]
    """Class ids of the largest logits [pairs, most K], largest first."""

    @classmethod
    def of(cls, logits: NDArray[np.float32], most_rank: int, most_top_k: int) -> Fitted:
        """Prepare for ranks and K up to these."""
        mean = logits.mean(axis=0, dtype=np.float64)
        basis = principal_components(logits - mean, most_rank)
        return cls(logits, mean, basis, (logits - mean) @ basis.T, stored_first(logits, most_top_k))


def fit_sketch(
    fitted: Fitted,
    top_k: int,
    rank: int,
    tail_step: float,
    value_step: float,
    unseen: NDArray[np.float32] | None = None,
) -> ClassSketch:
    """The codec of these settings.

    ``unseen``: logits that fitted nothing, which decide the type of the residuals as well. A basis fits its
    own pairs too well: with 512 pairs of 40 classes (2026-11-25) 0.6 % of other records had one beyond int8.

    The rows of the basis are ordered by what is left of their coefficients once the best class is known, so
    that the types of the columns go from wide to narrow.
    """
    classes, best = fitted.logits.shape[1], fitted.first[:, 0]
    coef = fitted.coef[:, :rank] / tail_step
    centres = class_centres(coef, best, classes)
    left = np.rint(coef) - centres[best]
    order = np.argsort(-left.std(axis=0), kind="stable")
    left, centres, basis = left[:, order], centres[:, order], fitted.basis[:rank][order]
    wide, narrow = _column_types(left)
    settings = ClassSketchSettings.model_validate(
        {
            "top_k": top_k,
            "index_bits": index_bits(classes),
            "index_coding": coding_for(classes),
            "value_bits": 8,
            "value_step": value_step,
            "tail_rank": rank,
            "tail_wide": wide,
            "tail_bytes": narrow,
            "tail_step": tail_step,
        }
    )
    codec = ClassSketch(settings, classes, {"mean": fitted.mean, "basis": basis, "centres": centres})
    missed = _missed(fitted.logits[:_LOOKED_AT], fitted.first[:_LOOKED_AT, :top_k], codec)
    if unseen is not None:
        missed = max(missed, _missed(unseen, stored_first(unseen, top_k), codec))
    is_narrow = missed * _MARGIN <= value_step * settings.value_limit
    return codec if is_narrow else codec.changed(value_bits=16)


def coding_for(classes: int) -> str:
    """Whether class ids are stored as places in the usual order, whose table every reader holds."""
    return "rank" if classes <= RANKED_UP_TO else "class"


def _missed(logits: NDArray[np.float32], first: NDArray[np.int64], codec: ClassSketch) -> float:
    """The largest distance of a stored logit from what its coefficients say."""
    missed = logits - codec.sketch(codec.rounded(logits))
    return float(np.abs(np.take_along_axis(missed, first, axis=1)).max(initial=0.0))


def class_centres(coef: NDArray[np.float64], best: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Rounded mean coefficients [C, r] of the pairs whose best class is c, nearer zero where they are few."""
    sums = np.zeros((classes, coef.shape[1]))
    np.add.at(sums, best, coef)
    counts = np.bincount(best, minlength=classes)
    return np.rint(sums / (counts + _SHRINKAGE)[:, None]).clip(-INT16_MAX, INT16_MAX)


def _column_types(left: NDArray[np.float64]) -> tuple[int, int]:
    """How many of the columns need int16, and how many of the rest int8."""
    largest = np.abs(left).max(axis=0, initial=0.0) * _MARGIN
    wide = int(np.flatnonzero(largest > INT8_MAX).max(initial=-1)) + 1
    too_large = ((np.abs(left) > NIBBLE).mean(axis=0) > _CUT_OFF) | (left.std(axis=0) > _HALF_BYTE_STD)
    bytes_end = int(np.flatnonzero(too_large).max(initial=-1)) + 1
    return wide, max(0, bytes_end - wide)


def principal_components(centred: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """The leading eigenvectors [rank, C] of the covariance, signs fixed by their largest entry.

    Through the smaller of the two Gram matrices, so that 21,000 classes cost no 21,000-square matrix. Rows
    beyond what the pairs span are zero.
    """
    pairs, classes = centred.shape
    spanned = min(rank, pairs - 1)
    components = np.zeros((rank, classes))
    if classes <= pairs:
        _, vectors = np.linalg.eigh(centred.T @ centred)
        found = vectors[:, ::-1][:, :spanned].T
    else:
        _, vectors = np.linalg.eigh(centred @ centred.T)
        found = np.linalg.qr(centred.T @ vectors[:, ::-1][:, :spanned])[0].T
    signs = np.sign(np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1))
    components[:spanned] = found * np.where(signs == 0, 1, signs)
    return components
