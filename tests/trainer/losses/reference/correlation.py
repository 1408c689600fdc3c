"""Losses that compare directions: Pearson and cosine, over classes, over the batch, over soft ranks."""

from __future__ import annotations

import numpy as np

from tests.trainer.losses.reference.basics import (
    Array,
    Labels,
    cosine,
    entropy,
    falling,
    log_softmax,
    pearson,
    probabilities,
    reference,
    sigmoid,
    softmax,
)


@reference
def dist(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> float:
    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    rows = np.mean([pearson(q[b], p[b]) for b in range(len(p))])
    columns = np.mean([pearson(q[:, c], p[:, c]) for c in range(p.shape[1])])
    return temperature**2 * (beta * (1 - rows) + gamma * (1 - columns))


@reference
def r2kd(
    student: Array, teacher: Array, labels: Labels, *, temperature: float = 4.0, weight: float = 2.0
) -> float:
    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    rows = np.mean([abs(cosine(q[b], p[b])) for b in range(len(p))])
    columns = np.mean([abs(cosine(q[:, c], p[:, c])) for c in range(p.shape[1])])
    return weight * temperature**2 * ((1 - rows) + (1 - columns))


def soft_ranks(logits: Array, temperature: float) -> Array:
    return np.array([sigmoid((x - logits) / temperature).sum() for x in logits])


@reference
def cmkd(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    temperature: float = 1.0,
    k: int = 32,
    rank_temperature: float = 1.0,
) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        difficulty = entropy(log_softmax(t / temperature)) / np.log(len(t))
        values = pearson(softmax(t / temperature), softmax(s / temperature))
        top = falling(t)[:k]
        ranks = pearson(soft_ranks(t[top], rank_temperature), soft_ranks(s[top], rank_temperature))
        total += (1 - difficulty) * (1 - values) + difficulty * (1 - ranks)
    return temperature**2 * total / len(student)
