"""Numbers that no formula can work with. They are found on the device; reading the finding waits for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cache_builder.format.errors import DataError, KDCacheError

FLAWS = ("teacher", "labels", "student")
"""What may be wrong, in the order of reporting: wrong data is also what makes a student diverge."""


class DivergedError(KDCacheError):
    """The student's logits are not finite any more: train with a lower learning rate."""


def has_non_finite(logits: Tensor) -> Tensor:
    """Whether any number is infinite or not a number, bool []."""
    return ~torch.isfinite(logits).all()


def out_of_range(labels: Tensor, classes: int) -> Tensor:
    """Whether any label is not one of 0 to classes - 1, bool []."""
    return ((labels < 0) | (labels >= classes)).any()


def raise_flaw(where: str, found: Sequence[bool], classes: int, when: str = "") -> None:
    """Raise the error of the first flaw that was found, if any.

    ``where``: the loss; ``found``: one bool per ``FLAWS``; ``when``: the steps in question, as `` in steps 1
    to 50``.
    """
    teacher, labels, student = found
    if teacher:
        raise DataError(f"{where}: teacher logits are not finite{when}: are these rows invalid in the cache?")
    if labels:
        raise DataError(f"{where}: labels must lie in 0 to {classes - 1}, others were found{when}")
    if student:
        raise DivergedError(
            f"{where}: student logits are not finite{when}: it diverged; lower the learning rate"
        )
