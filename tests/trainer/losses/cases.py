"""Losses with settings, and batches to evaluate them on: what the laws go over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer.losses.reference import REFERENCES
from trainer.losses import LOSSES, Loss, make_loss

Fields = dict[str, Any]

GROUPS = (0, 0, 1, 1, 1, 2, 2)
"""Of ltkd, for the 7 classes of the usual batch."""

# Settings beside the defaults that a law must hold for as well.
VARIANTS: dict[str, list[Fields]] = {
    "ce": [{}, {"label_smoothing": 0.1}],
    "kd": [{}, {"temperature": 1.0}],
    "dkd": [{}, {"alpha": 0.5, "beta": 2.0, "temperature": 1.0}],
    "dist": [{}, {"beta": 0.5, "gamma": 2.0, "temperature": 4.0}],
    "standardized": [{}, {"loss": {"name": "dkd", "configuration": {"temperature": 2.0}}}],
    "mlkd": [{}, {"temperatures": (1.0, 2.0, 3.0, 4.0)}],
    "mlkd_single_view": [{}, {"temperatures": (1.0, 2.0)}],
    "rld": [{}, {"alpha": 0.5, "beta": 0.5, "temperature": 1.0, "scd_temperature": 4.0}],
    "swap": [{}, {"loss": {"name": "dkd", "configuration": {}}}],
    "sort": [{}, {"loss": {"name": "standardized", "configuration": {}}}],
    "refined_self": [{}, {"temperature": 1.0}],
    "ldrld": [{}, {"depth": 3, "temperature": 1.0, "gamma": 0.2}],
    "crld": [{}, {"temperature": 4.0, "weak_threshold": 0.5, "strong_threshold": 0.6, "weights": (1.0, 3.0)}],
    "pld": [{}, {"temperature": 4.0}],
    "redistill": [
        {},
        {"orientation": "student_teacher", "temperature": 2.0},
        {"power": -0.5},
        {"power": 0.0},
        {"power": -1.0},
    ],
    "abkd": [
        {},
        {"alpha": 0.5, "beta": 0.0},
        {"alpha": 0.0, "beta": 0.7},
        {"alpha": 0.6, "beta": -0.6},
        {"alpha": 0.0, "beta": 0.0},
        {"alpha": -0.3, "beta": 0.9, "temperature": 1.0},
    ],
    "ttm": [{}, {"gamma": 0.5}],
    "wttm": [{}, {"gamma": 0.5}],
    "cmkd": [{}, {"k": 3, "temperature": 2.0, "rank_temperature": 0.5}],
    "r2kd": [{}, {"temperature": 1.0, "weight": 0.5}],
    "ptloss": [{}, {"epsilon": (0.5, -0.2, 0.1)}, {"epsilon": ()}],
    "ltkd": [{"groups": GROUPS}, {"groups": (0, 0, 0, 2, 2, 0, 2), "alpha": 2.0, "beta": 0.5}],
    "tad": [{}, {"k": 2, "beta": 0.5}],
    "todi": [{}, {"temperature": 2.0}],
    "taid": [{}, {"start": 0.9}],
    "adakd": [
        {},
        {"ratio": 0.5, "difficulty": "reverse_kl", "divergence": "forward_kl", "temperature": 2.0},
        {"difficulty": "forward_kl", "sharpness": 1.0},
    ],
    "bdkd": [{}, {"delta": 1.5, "temperature": 2.0}],
    "sinkd": [{}, {"epsilon": 0.5, "iterations": 3, "temperature": 1.0, "factor": 1.0}],
    "symmetric_kl": [{}, {"lam": 0.3}],
    "jsd": [{}, {"lam": 0.5}],
    "skew_forward": [{}, {"lam": 0.5}, {"lam": 0.0}],
    "skew_reverse": [{}, {"lam": 0.5}],
    "first": [{}, {"k": 2, "epsilon": 1e-2}],
    "binary_kl": [{}, {"temperature": 1.0}],
    "soft_label": [
        {},
        {"kind": "hard"},
        {"kind": "smoothing", "temperature": 2.0},
        {"kind": "marginal_smoothing", "k": 2},
        {"kind": "marginal_renorm", "k": 3},
    ],
    "ofa": [{}, {"epsilon": 1.5}],
    "nkd": [{}, {"gamma": 0.5, "temperature": 2.0}],
    "ctkd": [{}, {"loss": {"name": "dkd", "configuration": {"beta": 2.0}}}],
    "mixstd": [{}, {"gamma": 0.5, "alpha": 2.0}],
    "tgeo": [{}, {"temperature": 1.0}],
}


def _identity(name: str, fields: Fields) -> str:
    return "-".join([name, *(str(value).replace(" ", "") for value in fields.values())])


CASES = [(name, fields) for name in LOSSES for fields in VARIANTS.get(name, [{}])]
every_loss = pytest.mark.parametrize(("name", "fields"), CASES, ids=[_identity(*case) for case in CASES])


def make(name: str, fields: Fields, classes: int = 7) -> Loss:
    """The loss as a trainer would have it; ltkd's groups cut or repeated to the number of classes."""
    if "groups" in fields:
        fields = fields | {"groups": fitted(fields["groups"], classes)}
    return make_loss(name, dict(fields))


def fitted(groups: tuple[int, ...], classes: int) -> tuple[int, ...]:
    return tuple(groups[c % len(groups)] for c in range(classes))


def batch(samples: int = 6, classes: int = 7, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, ...]:
    """Student, teacher, labels of one view."""
    student, teacher, labels = any_batch(1, samples, classes, scale, seed)
    return student, teacher, labels


def batch_for(
    loss: Loss, samples: int = 6, classes: int = 7, scale: float = 3.0, seed: int = 0
) -> tuple[Tensor, ...]:
    """The shapes that a loss takes."""
    return any_batch(loss.views, samples, classes, scale, seed)


def any_batch(views: int, samples: int, classes: int, scale: float, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, classes) if views == 1 else (views, samples, classes)
    student = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (samples,), generator=generator)
    return student.requires_grad_(), teacher, labels


def reference_value(
    name: str, fields: Fields, student: Tensor, teacher: Tensor, labels: Tensor, held: Tensor | None = None
) -> float:
    """The second evaluation, at a student's logits; ``held`` where the authors detach it."""
    if name == "tgeo":
        fields = fields | {"ratios": np.full(len(labels), 0.5)}  # what an untrained network says
    arrays = (student.detach().numpy(), teacher.numpy(), labels.numpy())
    return REFERENCES[name](*arrays, held=None if held is None else held.detach().numpy(), **fields)
