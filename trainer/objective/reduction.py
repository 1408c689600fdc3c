"""From a loss's values per sample to one number: masks, and counts over micro-batches and processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.losses import Loss

# Below one sample among as many micro-batches and processes as there can be.
_SMALLEST = 1e-9


class Counts(NamedTuple):
    """How many samples count, per micro-batch, on average over all micro-batches and processes of a step.

    Gradients are averaged over micro-batches and processes. A sum over the samples of one of them, divided by
    this average, gives the mean over all samples of the step, however unequally they are spread.
    """

    samples: float | Tensor
    """Of all samples."""
    labelled: float | Tensor
    """Of those that have a label."""


def reduced(
    loss: Loss,
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor | None,
    where: Tensor | None = None,
    count: float | Tensor | None = None,
) -> Tensor:
    """The mean of a loss over the samples that count, 0 where there are none.

    ``where``: bool [B]; None = all. The numbers of the others must be finite, too. ``count``: what the sum is
    divided by; None = the samples that count here. A loss that couples samples sees those that count alone,
    and its value weighs as many samples as they are; finding them waits for the device.
    """
    if where is None:
        value = loss.values(student, teacher, labels).mean()
        return value if count is None else value * (student.shape[-2] / _at_least_some(count))
    if loss.couples_samples:
        return _coupled(loss, student, teacher, labels, where, count)
    values = loss.values(student, teacher, labels)
    mean: Tensor = torch.where(where, values, 0.0).sum() / _at_least_some(
        where.sum() if count is None else count
    )
    return mean


def _coupled(
    loss: Loss,
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor | None,
    where: Tensor,
    count: float | Tensor | None,
) -> Tensor:
    student = student[..., where, :]
    number = student.shape[-2]
    if not number:
        return student.sum()  # zero, and still part of the graph
    teacher = None if teacher is None else teacher[..., where, :]
    value = loss.values(student, teacher, None if labels is None else labels[where])
    return value if count is None else value * (number / _at_least_some(count))


def _at_least_some(count: float | Tensor) -> float | Tensor:
    """The count; where nothing counts anywhere a sum is zero, and divided by this it stays that."""
    return count.clamp_min(_SMALLEST) if isinstance(count, Tensor) else max(count, _SMALLEST)
