"""Every loss on one fixed float64 batch: value and gradient, against the numbers kept in ``selftest.json``.

The kept numbers are those of a second, independent evaluation in NumPy (``tests/trainer/losses/reference``),
so ``kdtrain losses --selftest`` tells whether this machine computes what the formulas say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.losses import LOSSES

GOLDEN = Path(__file__).with_name("selftest.json")
SAMPLES = 16
CLASSES = (100, 1000)
VALUE_TOLERANCE = 1e-10
"""Relative."""
SLOPE_TOLERANCE = 1e-6
"""Relative: the kept slopes are finite differences."""
# Two views and two teachers of one batch.
_BLOCKS = 2


class Measured(NamedTuple):
    """One loss on the batch of one size."""

    name: str
    classes: int
    value: float
    gradient_norm: float
    """Length of the gradient with respect to the student's logits."""
    slope: float
    """The gradient along a fixed direction of unit length."""


class Kept(NamedTuple):
    """What the independent evaluation says."""

    name: str
    classes: int
    value: float
    slope: float
    """By finite differences."""


class Verdict(NamedTuple):
    """A measurement beside what is kept."""

    measured: Measured
    kept: Kept | None

    @property
    def is_right(self) -> bool | None:
        """Whether value and slope agree; None for a loss whose numbers are not kept, as one of your own."""
        return (
            None
            if self.kept is None
            else (
                math.isclose(self.measured.value, self.kept.value, rel_tol=VALUE_TOLERANCE, abs_tol=1e-14)
                and math.isclose(self.measured.slope, self.kept.slope, rel_tol=SLOPE_TOLERANCE, abs_tol=1e-10)
            )
        )


class FixedBatch(NamedTuple):
    """Logits and labels that every machine makes alike."""

    student: NDArray[np.float64]
    """[2, SAMPLES, classes]: the weak view, then the strong one."""
    teacher: NDArray[np.float64]
    """[2, SAMPLES, classes]: two views, or two teachers."""
    labels: NDArray[np.int64]
    direction: NDArray[np.float64]
    """Like ``student``, of unit length in each view."""
    counts: NDArray[np.int64]
    """Training counts of the classes, falling."""


def fixed_batch(classes: int) -> FixedBatch:
    """Normal logits from raw Philox words; the teacher is right in most samples, the student in some."""
    size = _BLOCKS * SAMPLES * classes
    student, teacher, direction = _normals(classes, 3 * size).reshape(3, _BLOCKS, SAMPLES, classes)
    labels = np.arange(SAMPLES, dtype=np.int64) * 7 % classes
    rows = np.arange(SAMPLES)
    student, teacher = 1.5 * student, 2.0 * teacher
    student[:, rows[::3], labels[::3]] += 4
    teacher[:, rows[: SAMPLES - 4], labels[: SAMPLES - 4]] += 8
    direction = direction / np.linalg.norm(direction, axis=(1, 2), keepdims=True)
    counts = np.arange(classes, 0, -1, dtype=np.int64)
    return FixedBatch(student, teacher, labels, direction, counts)


def measure(name: str, classes: int) -> Measured:
    """Value and gradient of a loss with its default fields."""
    batch = fixed_batch(classes)
    loss = LOSSES[name]().prepared(torch.from_numpy(batch.counts))
    shape = slice(None) if loss.views == 2 else 0
    student = torch.from_numpy(batch.student[shape]).requires_grad_()
    teacher = torch.from_numpy(batch.teacher[slice(None) if loss.takes_ensemble else shape])
    value = loss(student, teacher, torch.from_numpy(batch.labels))
    (gradient,) = torch.autograd.grad(value, student)
    slope = (gradient * torch.from_numpy(batch.direction[shape])).sum()
    return Measured(name, classes, *map(_number, (value, gradient.norm(), slope)))


def selftest() -> Iterator[Verdict]:
    """Every loss at every size, one after another."""
    kept = {(row.name, row.classes): row for row in read_golden()}
    for name in LOSSES:
        for classes in CLASSES:
            yield Verdict(measure(name, classes), kept.get((name, classes)))


def read_golden() -> list[Kept]:
    """The kept numbers."""
    return [Kept(*row) for row in json.loads(GOLDEN.read_text())]


def _number(value: Tensor) -> float:
    return float(value.detach())


def _normals(key: int, count: int) -> NDArray[np.float64]:
    """Standard normal numbers by Box and Muller, from raw words: no library's sampler matters."""
    words = np.random.Philox(key=np.array([key, 0], np.uint64)).random_raw(2 * count)
    uniforms = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniforms[:count])), 2 * np.pi * uniforms[count:]
    normals: NDArray[np.float64] = radius * np.cos(angle)
    return normals
