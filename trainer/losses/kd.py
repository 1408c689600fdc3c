"""Hinton's distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, Scalar


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p||q)`` over the last axis, from log-probabilities, in nats. Zero where p underflows."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class KnowledgeDistillation(Loss):
    """``T^2 KL(p_T || q_T)``, batch mean, in nats (Hinton, Vinyals, Dean, arXiv 1503.02531).

    Scaled as in mdistiller's ``KD.py``: with T^2, without the cross-entropy.
    """

    name: ClassVar[str] = "kd"

    temperature: float = 4.0
    """T > 0; both softmaxes are taken of logits / T."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> Scalar:
        """Labels are not looked at."""
        log_p = F.log_softmax(teacher / self.temperature, dim=-1)
        log_q = F.log_softmax(student / self.temperature, dim=-1)
        return self.temperature**2 * kl_divergence(log_p, log_q).mean()
