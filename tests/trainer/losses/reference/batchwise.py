"""Losses that compare the samples of a batch with each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.trainer.losses.reference.basics import Array, Labels, mean_kl, probabilities, reference


@reference
def sinkd(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    temperature: float = 2.0,
    epsilon: float = 0.1,
    iterations: int = 20,
    factor: float = 1e-3,
) -> float:
    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    cost = np.array([[np.abs(q_i - p_j).sum() for p_j in p] for q_i in q])
    plan = np.exp(-cost / epsilon)
    for _ in range(iterations):
        for i in range(len(plan)):
            plan[i] /= plan[i].sum()
        for j in range(len(plan)):
            plan[:, j] /= plan[:, j].sum()
    return factor * (plan * cost).sum()


def masked_levels(student: Array, teacher: Array, temperatures: Sequence[float]) -> float:
    """MLKD's instance, class and batch parts on one view.

    The masks only shrink the parts, as in the released code: each becomes the share of what it keeps.
    """
    certain = probabilities(teacher)
    confidence, mass = certain.max(axis=1), certain.sum(axis=0)
    samples_kept = np.mean(confidence <= np.percentile(confidence, 50))
    classes_kept = np.mean(mass <= np.percentile(mass, 50))
    total = 0.0
    for temperature in temperatures:
        p, q = probabilities(teacher, temperature), probabilities(student, temperature)
        instances = temperature**2 * mean_kl(student, teacher, temperature)
        classes = ((p.T @ p - q.T @ q) ** 2).sum() / p.shape[1]
        batch = ((p @ p.T - q @ q.T) ** 2).sum() / len(p)
        total += samples_kept * instances + classes_kept * classes + samples_kept * batch
    return total


@reference
def mlkd_single_view(
    student: Array, teacher: Array, labels: Labels, *, temperatures: Sequence[float] = (4, 3, 5, 2, 6)
) -> float:
    return masked_levels(student, teacher, temperatures)
