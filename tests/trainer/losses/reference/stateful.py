"""Losses that carry state from step to step. The state is an argument; how it moves is a function beside."""

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
    reference,
    sigmoid,
    tempered,
)


@reference
def taid(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    held: Array,
    start: float = 0.4,
    end: float = 1.0,
    momentum: float = 0.99,
    step: float = 5e-4,
    ratio: float | None = None,
) -> float:
    """``ratio`` is t, the teacher's share of the target; before the first update it is ``start``."""
    share = start if ratio is None else ratio
    total = 0.0
    for s, t, fixed in zip(student, teacher, held, strict=True):
        target = log_softmax((1 - share) * fixed + share * t)
        total += cross_entropy(target, log_softmax(s))
    return total / len(student)


def taid_schedule(
    values: list[float],
    progress: list[float],
    start: float = 0.4,
    end: float = 1.0,
    momentum: float = 0.99,
    step: float = 5e-4,
) -> list[float]:
    """t after the update that follows each step, from the steps' values and the shares of all steps done."""
    shares, share, trend = [], start, 0.0
    for i, (value, done) in enumerate(zip(values, progress, strict=True)):
        if i > 0:
            before = values[i - 1]
            trend = momentum * trend + (1 - momentum) * (before - value) / (before + 1e-15)
            ahead = share + step * float(sigmoid(np.float64(trend))) * (1 - share)
            share = min(end, max(start + (end - start) * done, ahead))
        shares.append(share)
    return shares


def difficulty_of(kind: str, log_p: Array, log_q: Array) -> float:
    if kind == "hellinger":
        return float(np.sqrt(((np.exp(log_q / 2) - np.exp(log_p / 2)) ** 2).sum()) / np.sqrt(2))
    return divergence_of(kind, log_p, log_q)


def divergence_of(kind: str, log_p: Array, log_q: Array) -> float:
    return {"reverse_kl": kl(log_q, log_p), "forward_kl": kl(log_p, log_q)}[kind]


@reference
def adakd(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    difficulty: str = "hellinger",
    divergence: str = "reverse_kl",
    ratio: float = 1.0,
    sharpness: float = 0.5,
    temperature: float = 1.0,
    kept: float | None = None,
) -> float:
    """``kept`` is r, the share of samples that count; before the first update it is ``ratio``."""
    pairs = tempered(student, teacher)
    difficulties = np.array([difficulty_of(difficulty, log_p, log_q) for log_p, log_q in pairs])
    number = max(1, int(len(student) * (ratio if kept is None else kept)))
    hardest = falling(difficulties)[:number]
    median = sorted(difficulties[hardest])[(number - 1) // 2]
    total = 0.0
    for b in hardest:
        tau = temperature
        if median > 0:
            relative = max(difficulties[b] / median, 1e-8)
            tau *= np.exp(-sharpness * np.tanh(np.log(relative)))
        total += tau**2 * divergence_of(
            divergence, log_softmax(teacher[b] / tau), log_softmax(student[b] / tau)
        )
    return total / number


def adakd_ratios(values: list[float], start: float = 1.0) -> list[float]:
    """r after the update that follows each step, from the steps' values."""
    ratios, ratio = [], start
    average = anchor = values[0]
    for i, value in enumerate(values):
        if i > 0:
            average = 0.9 * average + 0.1 * value
            if anchor - average < -0.05 * anchor:
                ratio, anchor = min(1.05 * ratio, 1.0), average
            elif anchor - average > 0.05 * anchor:
                ratio, anchor = max(0.95 * ratio, 0.1), average
        ratios.append(ratio)
    return ratios


@reference
def tgeo(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    ratios: Sequence[float] | Array,
    temperature: float = 4.0,
) -> float:
    """``ratios`` is a, what the network says of each sample."""
    total = 0.0
    for s, t, y, a in zip(student, teacher, labels, ratios, strict=True):
        apart = kl(log_softmax(t / temperature), log_softmax(s / temperature))
        total += a * temperature**2 * apart + (1 - a) * -log_softmax(s)[y]
    return total / len(student)
