"""Plackett-Luce distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, Scalar


def label_first(teacher: Tensor, labels: Tensor) -> Tensor:
    """Permutation [B, C]: the label, then the other classes by falling teacher logit (ties: lower id)."""
    raised = teacher.scatter(1, labels[:, None], torch.inf)
    return raised.argsort(dim=1, descending=True, stable=True)


@dataclass(frozen=True)
class PlackettLuce(Loss):
    """``sum_k a_k (logsumexp_{l >= k} s_{pi_l} - s_{pi_k})``, batch mean, in nats (arXiv 2506.12542).

    ``pi`` ranks the label first, then the other classes by falling teacher logit; ``a_k`` is the teacher's
    probability of ``pi_k`` at temperature T. A whole objective by itself: no cross-entropy beside it, no
    T^2, the student untempered. The k = 1 term is p_y times the cross-entropy.
    """

    name: ClassVar[str] = "pld"
    needs_labels: ClassVar[bool] = True

    temperature: float = 1.0
    """Reshapes the weights a_k only; > 0."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> Scalar:
        """Ranks are constants: gradients flow through the student's logits alone."""
        order = label_first(teacher, labels)
        weights = F.softmax(teacher / self.temperature, dim=1).gather(1, order)
        ranked = student.gather(1, order)
        rest = ranked.flip(1).logcumsumexp(1).flip(1)
        return (weights * (rest - ranked)).sum(1).mean()
