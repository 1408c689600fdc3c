"""What the formulas share. Everything is said in log-probabilities, so that nothing overflows at ±160."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Reference = Callable[..., float]


def reference(function: Callable[..., float]) -> Reference:
    """Lets a formula be called with or without ``held``: the student's logits where the authors detach them.

    A formula that detaches something has a parameter of that name and gets the student where none was given;
    the others never see it.
    """
    detaches = "held" in inspect.signature(function).parameters

    @functools.wraps(function)
    def evaluate(
        student: Array, teacher: Array, labels: Labels, *, held: Array | None = None, **fields: object
    ) -> float:
        if detaches:
            fields["held"] = student if held is None else held
        return float(function(student, teacher, labels, **fields))

    return evaluate


def logsumexp(values: Array) -> float:
    return float(values.max() + np.log(np.exp(values - values.max()).sum()))


def log_softmax(logits: Array) -> Array:
    return logits - logsumexp(logits)


def softmax(logits: Array) -> Array:
    return np.exp(log_softmax(logits))


def log_sigmoid(logits: Array) -> Array:
    return -np.logaddexp(0.0, -logits)


def sigmoid(logits: Array) -> Array:
    return np.exp(log_sigmoid(logits))


def bounded_exp(exponents: Array) -> Array:
    """The exponential, continued by its tangent above 60."""
    return np.where(
        exponents <= 60, np.exp(np.minimum(exponents, 60.0)), np.exp(60.0) * (1 + exponents - 60.0)
    )


def kl(log_p: Array, log_q: Array) -> float:
    return sum(float(np.exp(a) * (a - b)) for a, b in zip(log_p, log_q, strict=True))


def cross_entropy(log_p: Array, log_q: Array) -> float:
    return -sum(float(np.exp(a) * b) for a, b in zip(log_p, log_q, strict=True))


def entropy(log_p: Array) -> float:
    return cross_entropy(log_p, log_p)


def log_two(log_p: Array, label: int) -> Array:
    """The logs of (p_y, 1 - p_y)."""
    return np.array([log_p[label], logsumexp(np.delete(log_p, label))])


def tempered(student: Array, teacher: Array, temperature: float = 1.0) -> list[tuple[Array, Array]]:
    """Per sample (log p, log q): the teacher's log-probabilities, then the student's."""
    return [
        (log_softmax(t / temperature), log_softmax(s / temperature))
        for s, t in zip(student, teacher, strict=True)
    ]


def probabilities(logits: Array, temperature: float = 1.0) -> Array:
    return np.array([softmax(row / temperature) for row in logits])


def mean_kl(student: Array, teacher: Array, temperature: float) -> float:
    return float(np.mean([kl(log_p, log_q) for log_p, log_q in tempered(student, teacher, temperature)]))


def falling(values: Array) -> list[int]:
    """Ids by falling value; of equal ones the lower id first."""
    return [int(c) for c in np.argsort(-values, kind="stable")]


def cosine(a: Array, b: Array) -> float:
    return float(a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b) + 1e-8)


def pearson(a: Array, b: Array) -> float:
    return cosine(a - a.mean(), b - b.mean())
