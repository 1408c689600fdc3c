"""Decoupled knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, Scalar
from trainer.losses.kd import kl_divergence


def without_target(logits: Tensor, labels: Tensor) -> Tensor:
    """[B, C] to [B, C - 1]: the label's column left out of each row, the others in order."""
    others = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    return logits.gather(1, others + (others >= labels[:, None]))


@dataclass(frozen=True)
class DecoupledDistillation(Loss):
    """``T^2 [alpha KL(b^t||b^s) + beta KL(p^t||p^s)]``, batch mean, in nats (Zhao et al., arXiv 2203.08679).

    ``b = (p_y, 1 - p_y)``: label against the rest (TCKD, eq. 6); ``p`` the softmax over the other C - 1
    classes (NCKD). All at temperature T. The authors' code removes the label by subtracting 1000 from its
    logit; here it is left out, which gives the same numbers wherever theirs does not round.
    """

    name: ClassVar[str] = "dkd"
    needs_labels: ClassVar[bool] = True

    alpha: float = 1.0
    """Weight of the label-against-rest term."""
    beta: float = 8.0
    """Weight of the term among the other classes."""
    temperature: float = 4.0
    """T > 0."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> Scalar:
        """Both terms from log-probabilities, so that a certain teacher loses no precision."""
        target_t, other_t = self._split(teacher, labels)
        target_s, other_s = self._split(student, labels)
        target = kl_divergence(target_t, target_s)
        other = kl_divergence(other_t, other_s)
        return self.temperature**2 * (self.alpha * target + self.beta * other).mean()

    def _split(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log of (p_y, 1 - p_y) [B, 2] and log-softmax over the other classes [B, C - 1]."""
        scaled = logits / self.temperature
        others = without_target(scaled, labels)
        pair = torch.cat([scaled.gather(1, labels[:, None]), others.logsumexp(1, keepdim=True)], dim=1)
        return F.log_softmax(pair, dim=1), F.log_softmax(others, dim=1)
