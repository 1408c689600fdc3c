"""Losses that rewrite the logits and then ask another loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.trainer.losses.reference.basics import Array, Labels, Reference, falling, reference, sigmoid

Inner = Mapping[str, Any]
KD: Inner = {"name": "kd", "configuration": {}}
KD_AT_2: Inner = {"name": "kd", "configuration": {"temperature": 2.0}}


def evaluation(name: str) -> Reference:
    # Here, because the wrappers are entries of the table themselves.
    from tests.trainer.losses.reference import REFERENCES

    return REFERENCES[name]


def z_scores(logits: Array) -> Array:
    rows = logits.reshape(-1, logits.shape[-1])
    scored = [(row - row.mean()) / (row.std(ddof=1) + 1e-7) for row in rows]
    return np.array(scored).reshape(logits.shape)


@reference
def standardized(
    student: Array, teacher: Array, labels: Labels, *, held: Array, loss: Inner = KD_AT_2
) -> float:
    inner = evaluation(loss["name"])
    scores = z_scores(student), z_scores(teacher), labels
    return inner(*scores, held=z_scores(held), **loss.get("configuration", {}))


def rewritten(teacher: Array, labels: Labels, rewrite: Callable[[Array, int], Array]) -> Array:
    if teacher.ndim == 3:
        return np.array([rewritten(view, labels, rewrite) for view in teacher])
    return np.array([rewrite(t, int(y)) for t, y in zip(teacher, labels, strict=True)])


def swap_label_and_largest(logits: Array, label: int) -> Array:
    largest = int(logits.argmax())
    swapped = logits.copy()
    swapped[label], swapped[largest] = logits[largest], logits[label]
    return swapped


def deal_label_first(logits: Array, label: int) -> Array:
    order = falling(logits)
    dealt = logits.copy()
    dealt[[label, *(c for c in order if c != label)]] = logits[order]
    return dealt


@reference
def swap(student: Array, teacher: Array, labels: Labels, *, held: Array, loss: Inner = KD) -> float:
    taught = rewritten(teacher, labels, swap_label_and_largest)
    return evaluation(loss["name"])(student, taught, labels, held=held, **loss.get("configuration", {}))


@reference
def sort(student: Array, teacher: Array, labels: Labels, *, held: Array, loss: Inner = KD) -> float:
    taught = rewritten(teacher, labels, deal_label_first)
    return evaluation(loss["name"])(student, taught, labels, held=held, **loss.get("configuration", {}))


@reference
def ctkd(
    student: Array,
    teacher: Array,
    labels: Labels,
    *,
    held: Array,
    loss: Inner = KD,
    theta: float = 1.0,
) -> float:
    temperature = 1 + 20 * float(sigmoid(np.float64(theta)))
    inner = evaluation(loss["name"])
    fields = dict(loss.get("configuration", {}))
    if "temperature" in inspect.signature(inner).parameters:
        fields["temperature"] = 1.0
    logits = student / temperature, teacher / temperature, labels
    return temperature**2 * inner(*logits, held=held / temperature, **fields)
