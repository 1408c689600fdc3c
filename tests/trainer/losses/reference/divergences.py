"""Divergences between p and q, and mixtures of two of them weighed per class or per sample."""

from __future__ import annotations

import numpy as np

from tests.trainer.losses.reference.basics import (
    Array,
    Labels,
    cross_entropy,
    entropy,
    falling,
    kl,
    reference,
    sigmoid,
    tempered,
)


def log_mixture(log_a: Array, log_b: Array, lam: float) -> Array:
    """The log of (1 - lam) a + lam b."""
    if lam == 0:
        return log_a
    if lam == 1:
        return log_b
    return np.logaddexp(np.log(1 - lam) + log_a, np.log(lam) + log_b)


@reference
def forward_ce(student: Array, teacher: Array, labels: Labels) -> float:
    return np.mean([cross_entropy(log_p, log_q) for log_p, log_q in tempered(student, teacher)])


@reference
def reverse_kl(student: Array, teacher: Array, labels: Labels) -> float:
    return np.mean([kl(log_q, log_p) for log_p, log_q in tempered(student, teacher)])


@reference
def symmetric_kl(student: Array, teacher: Array, labels: Labels, *, lam: float = 0.9) -> float:
    total = 0.0
    for log_p, log_q in tempered(student, teacher):
        total += (1 - lam) * cross_entropy(log_p, log_q) + lam * kl(log_q, log_p)
    return total / len(student)


@reference
def jsd(student: Array, teacher: Array, labels: Labels, *, lam: float = 0.9) -> float:
    total = 0.0
    for log_p, log_q in tempered(student, teacher):
        log_m = log_mixture(log_p, log_q, lam)
        total += lam * kl(log_q, log_m) + (1 - lam) * kl(log_p, log_m)
    return total / len(student)


@reference
def tvd(student: Array, teacher: Array, labels: Labels) -> float:
    pairs = tempered(student, teacher)
    return np.mean([np.abs(np.exp(log_p) - np.exp(log_q)).sum() / 2 for log_p, log_q in pairs])


@reference
def skew_forward(student: Array, teacher: Array, labels: Labels, *, lam: float = 0.1) -> float:
    pairs = tempered(student, teacher)
    return np.mean([cross_entropy(log_p, log_mixture(log_q, log_p, lam)) for log_p, log_q in pairs])


@reference
def skew_reverse(student: Array, teacher: Array, labels: Labels, *, lam: float = 0.1) -> float:
    pairs = tempered(student, teacher)
    return np.mean([kl(log_q, log_mixture(log_p, log_q, lam)) for log_p, log_q in pairs])


@reference
def akl(student: Array, teacher: Array, labels: Labels, *, held: Array) -> float:
    total = 0.0
    for (log_p, log_q), (_, log_held) in zip(
        tempered(student, teacher), tempered(held, teacher), strict=True
    ):
        p = np.exp(log_p)
        errors = np.abs(p - np.exp(log_held))
        head, tail, reached = 0.0, 0.0, 0.0
        for position, c in enumerate(falling(p)):
            reached += p[c]
            if position > 0 and reached > 0.5:
                tail += errors[c]
            else:
                head += errors[c]
        weight = head / (head + tail) if head + tail > 0 else 0.5
        total += weight * kl(log_p, log_q) + (1 - weight) * kl(log_q, log_p)
    return total / len(student)


@reference
def todi(student: Array, teacher: Array, labels: Labels, *, held: Array, temperature: float = 1.0) -> float:
    total = 0.0
    for (log_p, log_q), (_, log_held) in zip(
        tempered(student, teacher, temperature), tempered(held, teacher, temperature), strict=True
    ):
        for c in range(len(log_p)):
            weight = sigmoid(log_p[c] - log_held[c])
            total += weight * np.exp(log_p[c]) * (log_p[c] - log_q[c])
            total += (1 - weight) * np.exp(log_q[c]) * (log_q[c] - log_p[c])
    return total / len(student)


@reference
def bdkd(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    held: Array,
    delta: float = 3.0,
    temperature: float = 1.0,
) -> float:
    total = 0.0
    for (log_p, log_q), (_, log_held) in zip(
        tempered(student, teacher, temperature), tempered(held, teacher, temperature), strict=True
    ):
        forward = delta if entropy(log_p) > entropy(log_held) else 1.0
        reverse = delta if entropy(log_held) > entropy(log_p) else 1.0
        total += forward * cross_entropy(log_p, log_q) + reverse * kl(log_q, log_p)
    return total / len(student)
