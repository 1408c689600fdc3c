"""Losses that split the classes (label and others, head and tail, groups) and weigh the parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.trainer.losses.reference.basics import (
    Array,
    Labels,
    cross_entropy,
    falling,
    kl,
    log_softmax,
    log_two,
    logsumexp,
    reference,
    tempered,
)


@reference
def dkd(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> float:
    total = 0.0
    for (log_p, log_q), y in zip(tempered(student, teacher, temperature), labels, strict=True):
        others = [c for c in range(len(log_p)) if c != y]
        total += alpha * kl(log_two(log_p, y), log_two(log_q, y))
        total += beta * kl(log_softmax(log_p[others]), log_softmax(log_q[others]))
    return temperature**2 * total / len(student)


@reference
def nkd(
    student: Array, teacher: Array, labels: Labels, *, gamma: float = 1.5, temperature: float = 1.0
) -> float:
    total = 0.0
    for s, t, y in zip(student, teacher, labels, strict=True):
        others = [c for c in range(len(s)) if c != y]
        log_p, log_q = log_softmax(t[others] / temperature), log_softmax(s[others] / temperature)
        total += np.exp(log_softmax(t)[y]) * -log_softmax(s)[y]
        total += gamma * temperature**2 * cross_entropy(log_p, log_q)
    return total / len(student)


@reference
def rld(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    scd_temperature: float = 1.0,
) -> float:
    total = 0.0
    for s, t, y in zip(student, teacher, labels, strict=True):
        log_p, log_q = log_softmax(t / scd_temperature), log_softmax(s / scd_temperature)
        # The teacher is asked how sure it is of its own class, the student how sure it is of the label.
        confidence = kl(log_two(log_p, int(t.argmax())), log_two(log_q, y))
        total += alpha * scd_temperature**2 * confidence
        below = [c for c in range(len(t)) if t[c] < t[y]]
        if below:
            log_p, log_q = log_softmax(t[below] / temperature), log_softmax(s[below] / temperature)
            total += beta * temperature**2 * kl(log_p, log_q)
    return total / len(student)


@reference
def tad(student: Array, teacher: Array, labels: Labels, *, k: int = 10, beta: float = 2.0) -> float:
    heads, tails, log_masses = [], [], []
    for log_p, log_q in tempered(student, teacher):
        order = falling(log_p)
        size = min(k, len(order) - 1)
        top, rest = order[:size], order[size:]
        outcomes_p = np.array([*log_p[top], logsumexp(log_p[rest])])
        outcomes_q = np.array([*log_q[top], logsumexp(log_q[rest])])
        heads.append(kl(outcomes_p, outcomes_q))
        tails.append(kl(log_softmax(log_p[rest]), log_softmax(log_q[rest])))
        log_masses.append(logsumexp(log_p[rest]))
    log_mean = logsumexp(np.array(log_masses)) - np.log(len(student))
    parts = zip(heads, tails, log_masses, strict=True)
    return np.mean([head + beta * np.exp(log_mass - log_mean) * tail for head, tail, log_mass in parts])


@reference
def ltkd(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    temperature: float = 4.0,
    groups: Sequence[int] | None = None,
) -> float:
    if groups is None:
        raise ValueError("ltkd is defined only where each class has a group")
    members = [[c for c in range(len(groups)) if groups[c] == group] for group in sorted(set(groups))]
    pairs = tempered(student, teacher, temperature)
    masses_p = np.array([[logsumexp(log_p[ids]) for ids in members] for log_p, _ in pairs])
    masses_q = np.array([[logsumexp(log_q[ids]) for ids in members] for _, log_q in pairs])
    log_means = np.array([logsumexp(column) - np.log(len(student)) for column in masses_p.T])
    total = 0.0
    for (log_p, log_q), mass_p, mass_q in zip(pairs, masses_p, masses_q, strict=True):
        rebalanced = log_softmax(mass_p - np.log(len(members)) - log_means)
        total += alpha * kl(rebalanced, mass_q)
        total += beta * sum(kl(log_softmax(log_p[ids]), log_softmax(log_q[ids])) for ids in members)
    return temperature**2 * total / len(student)
