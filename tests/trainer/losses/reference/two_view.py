"""Losses over a weak and a strong view of each sample: logits are [2, B, C], the weak view first."""

from __future__ import annotations

from collections.abc import Sequence

from tests.trainer.losses.reference.basics import (
    Array,
    Labels,
    kl,
    log_softmax,
    mean_kl,
    reference,
    softmax,
)
from tests.trainer.losses.reference.batchwise import masked_levels


@reference
def mlkd(
    student: Array, teacher: Array, labels: Labels, *, temperatures: Sequence[float] = (4, 3, 5, 2, 6)
) -> float:
    weak, strong = 0, 1
    total = masked_levels(student[weak], teacher[weak], temperatures)
    for position, temperature in enumerate(temperatures):
        # The released code takes the weak view again from the fourth temperature on.
        view = strong if position < 3 else weak
        total += temperature**2 * mean_kl(student[view], teacher[view], temperature)
    return total


@reference
def crld(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    temperature: float = 1.0,
    weak_threshold: float = 0.9,
    strong_threshold: float = 0.2,
    weights: tuple[float, float] = (2.0, 0.5),
) -> float:
    def apart(s: Array, t: Array) -> float:
        return temperature**2 * kl(log_softmax(t / temperature), log_softmax(s / temperature))

    within, across = 0.0, 0.0
    for s_weak, s_strong, t_weak, t_strong in zip(*student, *teacher, strict=True):
        if softmax(t_weak).max() >= weak_threshold:
            within += apart(s_weak, t_weak) + apart(s_strong, t_strong)
        if softmax(t_strong).max() >= strong_threshold:
            across += apart(s_strong, t_weak) + apart(s_weak, t_strong)
    return (weights[0] * within + weights[1] * across) / student.shape[1]
