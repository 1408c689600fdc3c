"""Cross-entropy, Hinton's distillation, and what only chooses another temperature for each side."""

from __future__ import annotations

import numpy as np

from tests.trainer.losses.reference.basics import (
    Array,
    Labels,
    kl,
    log_softmax,
    mean_kl,
    reference,
)


@reference
def ce(student: Array, teacher: Array, labels: Labels, *, label_smoothing: float = 0.0) -> float:
    total = 0.0
    for s, y in zip(student, labels, strict=True):
        target = np.full(len(s), label_smoothing / len(s))
        target[y] += 1 - label_smoothing
        total -= float(target @ log_softmax(s))
    return total / len(student)


@reference
def kd(student: Array, teacher: Array, labels: Labels, *, temperature: float = 4.0) -> float:
    return temperature**2 * mean_kl(student, teacher, temperature)


@reference
def ttm(student: Array, teacher: Array, labels: Labels, *, gamma: float = 0.1) -> float:
    pairs = zip(student, teacher, strict=True)
    return np.mean([kl(log_softmax(gamma * t), log_softmax(s)) for s, t in pairs])


@reference
def wttm(student: Array, teacher: Array, labels: Labels, *, gamma: float = 0.1) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        weight = np.exp(gamma * log_softmax(t)).sum()
        total += weight * kl(log_softmax(gamma * t), log_softmax(s))
    return total / len(student)


@reference
def mixstd(
    student: Array, teacher: Array, labels: Labels, *, gamma: float = 1.0, alpha: float = 1.0
) -> float:
    total = 0.0
    for s, t, y in zip(student, teacher, labels, strict=True):
        log_p = log_softmax(t / max(t.std(ddof=1), 1e-12))
        log_q = log_softmax(s / max(s.std(ddof=1), 1e-12))
        total += gamma * -log_q[y] + alpha * kl(log_p, log_q)
    return total / len(student)


@reference
def mse(student: Array, teacher: Array, labels: Labels) -> float:
    return np.mean((student - teacher) ** 2)
