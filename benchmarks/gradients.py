"""How far a cache turns the gradient of each loss: its cosine from decoded and from live logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.losses import LOSSES, Loss

BATCH = 128
_WITHOUT = ("ce",)
"""Losses that do not look at the teacher."""


@dataclass(frozen=True)
class Batches:
    """Logits of the same samples: float32 [2, N, C], two views; labels [N]."""

    student: NDArray[np.float32]
    live: NDArray[np.float32]
    labels: NDArray[np.int64]


def losses(classes: int, labels: NDArray[np.int64]) -> dict[str, Loss]:
    """Every loss of the registry that has a teacher, with its own defaults."""
    counts = torch.from_numpy(np.bincount(labels, minlength=classes)).clamp_min(1)
    found = {name: kind().prepared(counts) for name, kind in LOSSES.items() if name not in _WITHOUT}
    return found


class Gradients:
    """The student's gradients from live logits, computed once, to compare those from decoded ones with."""

    def __init__(self, batches: Batches, chosen: dict[str, Loss] | None = None) -> None:
        """``chosen``: losses by a name for each; every loss where there is none."""
        self.losses = chosen or losses(batches.live.shape[2], batches.labels)
        samples = batches.labels.size // BATCH * BATCH
        self._parts = [slice(start, start + BATCH) for start in range(0, samples, BATCH)]
        self._batches = batches
        self._live = {name: self._of(loss, batches.live) for name, loss in self.losses.items()}

    def cosines(self, decoded: NDArray[np.float32]) -> dict[str, float]:
        """The cosine per loss of the gradients of whole batches, averaged; ``decoded``: [2, N, C]."""
        return {name: self._cosine(name, loss, decoded) for name, loss in self.losses.items()}

    def _cosine(self, name: str, loss: Loss, decoded: NDArray[np.float32]) -> float:
        pairs = zip(self._of(loss, decoded), self._live[name], strict=True)
        return float(np.mean([functional.cosine_similarity(a, b, dim=0).item() for a, b in pairs]))

    def _of(self, loss: Loss, teacher: NDArray[np.float32]) -> list[Tensor]:
        found = []
        for part in self._parts:
            labels = torch.from_numpy(self._batches.labels[part])
            given = (torch.from_numpy(logits[:, part]) for logits in (self._batches.student, teacher))
            found.append(_gradient(loss, *given, labels).flatten())
        return found


def _gradient(loss: Loss, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    if loss.views == 1:
        student, teacher = student[0], teacher[0]
    given = student.double().clone().requires_grad_()
    torch.manual_seed(0)
    (gradient,) = torch.autograd.grad(loss(given, teacher.double(), labels), given)
    return gradient
