"""Write ``trainer/losses/selftest.json`` from the NumPy references: -m tests.trainer.losses.write_selftest

Values and slopes (five-point differences) only; nothing here calls the trainer's own formulas.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.trainer.losses.reference import REFERENCES
from trainer.losses.selftest import CLASSES, GOLDEN, SAMPLES, FixedBatch, fixed_batch

STEP = 1e-3
TWO_VIEWS, MANY_TEACHERS = ("mlkd", "crld"), ("ensemble",)


def reference(name: str, batch: FixedBatch, student: NDArray[np.float64], held: NDArray[np.float64]) -> float:
    """A reference on the fixed batch, at a student near it."""
    fields: dict[str, Any] = {}
    if name == "ltkd":
        # Thirds by count, which falls with the class: 33 % head, 34 % medium, 33 % tail.
        classes = len(batch.counts)
        first, second = round(0.33 * classes), round(0.67 * classes)
        fields["groups"] = tuple((c >= first) + (c >= second) for c in range(classes))
    if name == "tgeo":
        fields["ratios"] = np.full(SAMPLES, 0.5)  # what an untrained network says
    whole = name in TWO_VIEWS + MANY_TEACHERS
    teacher = batch.teacher if whole else batch.teacher[0]
    return REFERENCES[name](student, teacher, batch.labels, held=held, **fields)


def kept(name: str, classes: int) -> tuple[str, int, float, float]:
    batch = fixed_batch(classes)
    view = slice(None) if name in TWO_VIEWS else 0
    student, direction = batch.student[view], batch.direction[view]
    steps = {n: reference(name, batch, student + n * STEP * direction, student) for n in (-2, -1, 1, 2)}
    slope = (steps[-2] - 8 * steps[-1] + 8 * steps[1] - steps[2]) / (12 * STEP)
    return name, classes, reference(name, batch, student, student), slope


if __name__ == "__main__":
    rows = [kept(name, classes) for name in REFERENCES for classes in CLASSES]
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
