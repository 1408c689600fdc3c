"""Losses that read each class as a question of its own."""

from __future__ import annotations

import numpy as np

from tests.trainer.losses.reference.basics import Array, Labels, kl, log_sigmoid, reference, softmax


@reference
def binary_kl(student: Array, teacher: Array, labels: Labels, *, temperature: float = 2.0) -> float:
    total = 0.0
    for s, t in zip(student / temperature, teacher / temperature, strict=True):
        for x, z in zip(s, t, strict=True):
            total += kl(log_sigmoid(np.array([z, -z])), log_sigmoid(np.array([x, -x])))
    return temperature**2 * total / len(student)


@reference
def bkd(student: Array, teacher: Array, labels: Labels) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        for x, p in zip(s, softmax(t), strict=True):
            total -= p * log_sigmoid(x) + (1 - p) * log_sigmoid(-x)
    return total / student.size
