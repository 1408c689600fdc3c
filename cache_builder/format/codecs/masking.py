"""Which logits say "this class is left out", and what becomes of them when a record is encoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cache_builder.format.frozen import Frozen

MASKED_BELOW = -5000.0
"""Logits of this or less, in a row whose largest is within ``ORDINARY`` of 0, are masks."""
ORDINARY = 1000.0
LOWEST = -1e4
"""No mask decodes to less: at any usual temperature its probability is 0, and squares stay finite."""


class MaskSection(Frozen):
    """What masked logits (-1e4, -1e9, -infinity beside ordinary ones) were raised to before encoding."""

    classes: int = Field(ge=0)
    """Classes that are masked in every record: they decode to their constant in ``codec/{output}/mean``."""
    lowest: float
    """What these decode to at least."""
    floor: float
    """What a logit was raised to that only some records mask."""


def is_masked(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the logits [n, C] are masks."""
    masked: NDArray[np.bool_] = np.isneginf(logits)
    ordinary = np.abs(logits.max(axis=1, keepdims=True)) < ORDINARY
    masked |= (logits <= MASKED_BELOW) & ordinary
    return masked


def unmasked(
    logits: NDArray[np.float32], masks: MaskSection, constants: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Logits [n, C] with masks at what they decode to; ``constants`` [C]: of classes masked throughout.

    A class is masked in every record where its constant is at or below the threshold. Not a number where one
    of those is not masked: the codec has no place for it.
    """
    masked = is_masked(logits)
    raised = np.where(masked, np.float32(masks.floor), logits)
    constant = np.where(masked, constants, np.float32(np.nan))
    settled: NDArray[np.float32] = np.where(constants <= MASKED_BELOW, constant, raised)
    return settled
