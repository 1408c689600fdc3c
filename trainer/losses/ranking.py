"""Losses about the order in which a teacher or a student puts the classes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, PerSample
from trainer.losses.probabilities import falling_order, kl_divergence, log_probs


@dataclass(frozen=True)
class PlackettLuce(Loss):
    """``sum_k a_k (logsumexp_{l >= k} s_{pi_l} - s_{pi_k})``, batch mean, in nats (arXiv 2506.12542).

    ``pi`` ranks the label first, then the other classes by falling teacher logit; ``a_k`` is the teacher's
    probability of ``pi_k`` at temperature T. A whole objective by itself: no cross-entropy beside it, no
    T^2, the student untempered. The k = 1 term is p_y times the cross-entropy.
    """

    name = "pld"
    paper = "Plackett-Luce distillation, arXiv 2506.12542, NeurIPS 2025"
    needs_labels = True

    temperature: float = 1.0
    """Reshapes the weights a_k only; > 0."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> PerSample:
        """Ranks are constants: gradients flow through the student's logits alone."""
        order = falling_order(teacher, labels)
        weights = F.softmax(teacher / self.temperature, dim=1).gather(1, order)
        ranked = student.gather(1, order)
        rest = ranked.flip(1).logcumsumexp(1).flip(1)
        return (weights * (rest - ranked)).sum(1)


@dataclass(frozen=True)
class LocalDenseRelations(Loss):
    """``alpha Local + beta RNTK``, batch mean, in nats (LDRLD, arXiv 2507.15911).

    Local: over the student's d largest classes, ``w_ab T^2 KL`` of the two-class softmax of every pair of
    ranks a < b, ``w_ab = 2 / (1.5 + |a - b|) exp(-gamma (a + b))``, and ``T^2 KL`` among all d with weight 1;
    divided by the number of terms. RNTK: ``T^2 KL`` among the other C - d. As released: the ids are the
    student's, and constants. The released class contains the cross-entropy; here it is the objective's.
    """

    name = "ldrld"
    paper = "LDRLD, arXiv 2507.15911, ICCV 2025"
    unconfirmed = "ImageNet settings"

    alpha: float = 10.5
    """Weight of the local relations; the README's ResNet-32x4 to ResNet-8x4."""
    beta: float = 7.0
    """Weight of the remaining classes."""
    depth: int = 7
    """d, classes whose relations are dense; at most C."""
    temperature: float = 4.0
    """T > 0."""
    gamma: float = 0.05
    """Decay of a pair's weight with its ranks."""

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive, and a depth without pairs."""
        super().__post_init__()
        self.require("depth", self.depth >= 2, "must be at least 2")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        depth = min(self.depth, student.shape[1])
        order = student.detach().argsort(dim=1, descending=True, stable=True)
        student = student.gather(1, order) / self.temperature
        teacher = teacher.gather(1, order) / self.temperature
        local = self._pairs(student[:, :depth], teacher[:, :depth])
        local = local + kl_divergence(log_probs(teacher[:, :depth]), log_probs(student[:, :depth]))
        local = local / (depth * (depth - 1) // 2 + 1)
        value = self.alpha * local
        if depth < student.shape[1]:
            others_t, others_s = log_probs(teacher[:, depth:]), log_probs(student[:, depth:])
            value = value + self.beta * kl_divergence(others_t, others_s)
        return self.temperature**2 * value

    def _pairs(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted divergences of all pairs of ranks, [B]: all pairs at once, as [B, pairs, 2]."""
        pairs = list(combinations(range(student.shape[1]), 2))
        columns = torch.tensor(pairs, device=student.device)
        log_p, log_q = log_probs(teacher[:, columns]), log_probs(student[:, columns])
        ranks = columns.to(student.dtype) + 1
        distance, total = ranks[:, 1] - ranks[:, 0], ranks.sum(1)
        weights = 2 / (1.5 + distance) * torch.exp(-self.gamma * total)
        return (weights * kl_divergence(log_p, log_q)).sum(1)
