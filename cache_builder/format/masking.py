"""Which logits say "this class is left out", and what becomes of them when a record is encoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.fields import Fields
from cache_builder.format.manifest import Codec, CodecSection, TailBasis

MASKED_BELOW = -5000.0
"""Logits of this or less, in a row whose largest is within ``ORDINARY`` of 0, are masks."""
ORDINARY = 1000.0
LOWEST = -1e4
"""No mask decodes to less: at any usual temperature its probability is 0, and squares stay finite."""


def is_masked(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the logits [n, C] are masks."""
    masked: NDArray[np.bool_] = np.isneginf(logits)
    ordinary = np.abs(logits.max(axis=1, keepdims=True)) < ORDINARY
    masked |= (logits <= MASKED_BELOW) & ordinary
    return masked


def unseen_masks(fields: Fields, codec: Codec) -> NDArray[np.bool_]:
    """Records [n] of every class one by one in which a mask took the whole range of the steps.

    Calibration saw none, so that the codec has no place for it: every other class of these would be alike.
    """
    if codec.masks is not None or not isinstance(codec, CodecSection):
        return np.zeros(len(fields["topk_index"]), bool)
    largest = fields["topk_max"].reshape(-1).astype(np.float64)
    least = largest - fields["topk_span"].reshape(-1)
    found: NDArray[np.bool_] = (least <= MASKED_BELOW) & (np.abs(largest) < ORDINARY)
    return found


def masked_throughout(codec: Codec, basis: TailBasis) -> NDArray[np.bool_]:
    """Classes [C] that a cache masks in every record: those of ``codec/mean`` at or below the threshold."""
    if codec.masks is None:
        return np.zeros(basis.mean.shape, bool)
    constant: NDArray[np.bool_] = basis.mean <= MASKED_BELOW
    return constant


def unmasked(logits: NDArray[np.float32], codec: Codec, basis: TailBasis) -> NDArray[np.float32]:
    """Logits [n, C] with masks at what they decode to.

    Not a number where a class that the cache masks throughout is not masked: the codec has no place for it.
    """
    if codec.masks is None:
        return logits
    masked = is_masked(logits)
    raised = np.where(masked, np.float32(codec.masks.floor), logits)
    constant = np.where(masked, basis.mean, np.float32(np.nan))
    settled: NDArray[np.float32] = np.where(masked_throughout(codec, basis), constant, raised)
    return settled
