"""Cross-entropies to a target made from the teacher, the label, or the student itself."""

from __future__ import annotations

import numpy as np

from tests.trainer.losses.reference.basics import (
    Array,
    Labels,
    falling,
    kl,
    log_softmax,
    reference,
    softmax,
    tempered,
)


@reference
def ensemble(student: Array, teacher: Array, labels: Labels) -> float:
    teachers = teacher if teacher.ndim == 3 else teacher[None]
    total = 0.0
    for b, s in enumerate(student):
        target = np.mean([softmax(t) for t in teachers[:, b]], axis=0)
        total -= float(target @ log_softmax(s))
    return total / len(student)


def stored_target(p: Array, kind: str, k: int) -> Array:
    """What FKD keeps of a teacher's probabilities."""
    if kind == "hard" or kind == "smoothing":
        k = 1
    order = falling(p)
    top, rest = order[:k], order[k:]
    target = np.zeros(len(p))
    if kind == "hard":
        target[top] = 1.0
    elif kind == "marginal_renorm":
        target[top] = p[top] / p[top].sum()
    elif kind == "smoothing" or kind == "marginal_smoothing":
        target[top] = p[top]
        if rest:
            target[rest] = p[rest].sum() / len(rest)
    else:
        raise ValueError(kind)
    return target


@reference
def soft_label(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    kind: str = "marginal_smoothing",
    k: int = 5,
    temperature: float = 1.0,
) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        total -= float(stored_target(softmax(t), kind, k) @ log_softmax(s / temperature))
    return total / len(student)


@reference
def partial_label(student: Array, teacher: Array, labels: Labels) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        first, second = falling(t)[:2]
        log_q = log_softmax(s)
        total -= 0.5 * log_q[first] + 0.5 * log_q[second]
    return total / len(student)


@reference
def first(student: Array, teacher: Array, labels: Labels, *, k: int = 5, epsilon: float = 1e-6) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        top = falling(t)[:k]
        p, q = softmax(t)[top] + epsilon, softmax(s)[top] + epsilon
        total += kl(np.log(p / p.sum()), np.log(q / q.sum()))
    return total / len(student)


@reference
def ofa(student: Array, teacher: Array, labels: Labels, *, epsilon: float = 1.0) -> float:
    total = 0.0
    for (log_p, log_q), y in zip(tempered(student, teacher), labels, strict=True):
        for c in range(len(log_p)):
            is_label = 1.0 if c == y else 0.0
            total -= ((np.exp(log_p[c]) + is_label) ** epsilon - is_label) * log_q[c]
    return total / len(student)


@reference
def refined_self(
    student: Array, teacher: Array, labels: Labels, *, held: Array, temperature: float = 4.0
) -> float:
    total = 0.0
    for s, fixed, y in zip(student, held, labels, strict=True):
        target = fixed.copy()
        target[y] += fixed.max()
        total += kl(log_softmax(target / temperature), log_softmax(s / temperature))
    return temperature**2 * total / len(student)
