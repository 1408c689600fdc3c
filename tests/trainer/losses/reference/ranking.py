"""Losses over an order of the classes."""

from __future__ import annotations

import numpy as np

from tests.trainer.losses.reference.basics import (
    Array,
    Labels,
    falling,
    kl,
    log_softmax,
    logsumexp,
    reference,
    softmax,
)


@reference
def pld(student: Array, teacher: Array, labels: Labels, *, temperature: float = 1.0) -> float:
    total = 0.0
    for s, t, y in zip(student, teacher, labels, strict=True):
        order = [int(y), *(c for c in falling(t) if c != y)]
        weights = softmax(t / temperature)
        for k, c in enumerate(order):
            total += weights[c] * (logsumexp(s[order[k:]]) - s[c])
    return total / len(student)


@reference
def ldrld(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    held: Array,
    alpha: float = 10.5,
    beta: float = 7.0,
    depth: int = 7,
    temperature: float = 4.0,
    gamma: float = 0.05,
) -> float:
    def among(ids: list[int], s: Array, t: Array) -> float:
        """T^2 KL of the two distributions over these classes alone."""
        return temperature**2 * kl(log_softmax(t[ids] / temperature), log_softmax(s[ids] / temperature))

    total = 0.0
    for s, t, fixed in zip(student, teacher, held, strict=True):
        order = falling(fixed)
        d = min(depth, len(order))
        local = among(order[:d], s, t)
        for a in range(1, d + 1):
            for b in range(a + 1, d + 1):
                weight = 2 / (1.5 + (b - a)) * np.exp(-gamma * (a + b))
                local += weight * among([order[a - 1], order[b - 1]], s, t)
        local /= d * (d - 1) / 2 + 1
        rest = among(order[d:], s, t) if d < len(order) else 0.0
        total += alpha * local + beta * rest
    return total / len(student)
