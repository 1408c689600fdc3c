"""Divergences made of powers of the probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.trainer.losses.reference.basics import (
    Array,
    Labels,
    bounded_exp,
    kl,
    reference,
    tempered,
)


def cressie_read(log_a: Array, log_b: Array, power: float) -> float:
    """sum a [(a/b)^l - 1] / (l (l + 1)), and what it tends to at l = 0 and l = -1."""
    if power == 0:
        return kl(log_a, log_b)
    if power == -1:
        return kl(log_b, log_a)
    raised = bounded_exp((1 + power) * log_a - power * log_b)
    return float((raised - np.exp(log_a)).sum()) / (power * (power + 1))


@reference
def redistill(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    power: float = 2 / 3,
    temperature: float = 1.0,
    orientation: str = "teacher_student",
) -> float:
    total = 0.0
    for log_p, log_q in tempered(student, teacher, temperature):
        if orientation == "teacher_student":
            total += cressie_read(log_p, log_q, power)
        elif orientation == "student_teacher":
            total += cressie_read(log_q, log_p, power)
        else:
            raise ValueError(orientation)
    return total / len(student)


def alpha_beta(log_p: Array, log_q: Array, a: float, b: float) -> float:
    """D_ab(p || q): the formula, or where it divides by zero what it tends to."""
    if a == 0 and b == 0:
        return float(((log_p - log_q) ** 2).sum()) / 2
    if b == 0:
        p, q = bounded_exp(a * log_p), bounded_exp(a * log_q)
        return float((p * (a * log_p - a * log_q) - p + q).sum()) / a**2
    if a == 0:
        p, q = bounded_exp(b * log_p), bounded_exp(b * log_q)
        return float((q * (b * log_q - b * log_p) - q + p).sum()) / b**2
    if a + b == 0:
        ratio = a * log_p - a * log_q
        return float((-ratio + bounded_exp(ratio) - 1).sum()) / a**2
    both = bounded_exp(a * log_p + b * log_q)
    p, q = bounded_exp((a + b) * log_p), bounded_exp((a + b) * log_q)
    return -float((both - a / (a + b) * p - b / (a + b) * q).sum()) / (a * b)


@reference
def abkd(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    alpha: float = 0.8,
    beta: float = 0.3,
    temperature: float = 4.0,
) -> float:
    pairs = tempered(student, teacher, temperature)
    return np.mean([alpha_beta(log_p, log_q, alpha, beta) for log_p, log_q in pairs])


@reference
def ptloss(student: Array, teacher: Array, labels: Labels, *, epsilon: Sequence[float] = (1.0,)) -> float:
    total = 0.0
    for log_p, log_q in tempered(student, teacher):
        for c in range(len(log_p)):
            series = -log_q[c]
            for m, coefficient in enumerate(epsilon, start=1):
                series += coefficient * (1 - np.exp(log_q[c])) ** m
            total += np.exp(log_p[c]) * series
    return total / len(student)
