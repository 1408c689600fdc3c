"""Forward and reverse divergences mixed by weights that compare teacher and student."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, PerSample
from trainer.losses.probabilities import entropy, kl_divergence, log_probs, soft_cross_entropy

# AKL's mu: the head holds this much of the teacher's mass.
_HEAD_MASS = 0.5


@dataclass(frozen=True)
class TokenwiseDivergence(Loss):
    """``sum_c [w p log(p/q) + (1 - w) q log(q/p)]``, batch mean, in nats (ToDi, arXiv 2505.16297).

    ``w_c = sigmoid(log p_c - log q_c)``, a constant for the gradient: classes that the student
    underestimates follow the forward direction, others the reverse one. Probabilities at T, no T^2.
    """

    name = "todi"
    paper = "ToDi, arXiv 2505.16297, EMNLP 2025"
    unconfirmed = "published for language models: weight for images is unknown"

    temperature: float = 1.0
    """T > 0."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        difference = log_p - log_q
        weight = torch.sigmoid(difference.detach())
        terms = (weight * log_p.exp() - (1 - weight) * log_q.exp()) * difference
        return terms.sum(-1)


@dataclass(frozen=True)
class AdaptiveKL(Loss):
    """``h KL(p||q) + (1 - h) KL(q||p)``, batch mean, in nats, T = 1 (Wu et al., arXiv 2404.02657).

    h: the head's share of ``sum_c |p_c - q_c|``, a constant for the gradient; the head are the teacher's
    largest classes up to half of its mass, at least one. As in ABKD's repository; TAID's copy applies the
    mask of the sorted classes to the unsorted ones.
    """

    name = "akl"
    paper = "Wu et al., arXiv 2404.02657"

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher), log_probs(student)
        head = self._head_share(log_p.exp(), log_q.detach().exp())
        return head * kl_divergence(log_p, log_q) + (1 - head) * kl_divergence(log_q, log_p)

    @staticmethod
    def _head_share(p: Tensor, q: Tensor) -> Tensor:
        falling, order = p.sort(dim=1, descending=True, stable=True)
        errors = (falling - q.gather(1, order)).abs()
        in_tail = falling.cumsum(1) > _HEAD_MASS
        in_tail[:, 0] = False
        head, total = errors.masked_fill(in_tail, 0).sum(1), errors.sum(1)
        return torch.where(total > 0, head / total.clamp_min(torch.finfo(p.dtype).tiny), 0.5)


@dataclass(frozen=True)
class BalancedDivergence(Loss):
    """``w_t (-sum_c p_c log q_c) + w_s KL(q||p)``, batch mean, in nats (BD-KD, arXiv 2212.12965).

    w_t is delta where the teacher's entropy is larger, w_s where the student's is; otherwise 1. As released
    in ABKD's and AdaKD's repositories: forward term without the teacher's entropy, delta 3. The paper trains
    the teacher along; here it is fixed. Probabilities at T, no T^2.
    """

    name = "bdkd"
    paper = "Amara et al., BD-KD, arXiv 2212.12965"
    unconfirmed = "the authors' own weights: the formula is that of two other repositories"

    delta: float = 3.0
    """Weight of the preferred direction."""
    temperature: float = 1.0
    """T > 0."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        surplus = entropy(log_p) - entropy(log_q.detach())
        forward = soft_cross_entropy(log_p.exp(), log_q) * torch.where(surplus > 0, self.delta, 1.0)
        reverse = kl_divergence(log_q, log_p) * torch.where(surplus < 0, self.delta, 1.0)
        return forward + reverse
