"""The divergences of DistiLLM (arXiv 2402.03898) and its kin, at T = 1, batch mean, in nats.

Forward terms are cross-entropies to the teacher, without its entropy, as in the released code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, PerSample
from trainer.losses.probabilities import kl_divergence, log_probs, soft_cross_entropy

_PAPER = "as in DistiLLM, arXiv 2402.03898"


@dataclass(frozen=True)
class ForwardCrossEntropy(Loss):
    """``-sum_c p_c log q_c``: forward KL without the teacher's entropy."""

    name = "forward_ce"
    paper = _PAPER

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        return soft_cross_entropy(log_probs(teacher).exp(), log_probs(student))


@dataclass(frozen=True)
class ReverseKL(Loss):
    """``KL(q || p)``."""

    name = "reverse_kl"
    paper = _PAPER

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        return kl_divergence(log_probs(student), log_probs(teacher))


@dataclass(frozen=True)
class SymmetricKL(Loss):
    """``(1 - lam) forward_ce + lam KL(q || p)``."""

    name = "symmetric_kl"
    paper = _PAPER

    lam: float = 0.9
    """Share of the reverse direction, 0 to 1."""

    def __post_init__(self) -> None:
        """Refuse a share outside 0 to 1."""
        self.require("lam", 0 <= self.lam <= 1, "must lie in 0 to 1")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher), log_probs(student)
        forward, reverse = soft_cross_entropy(log_p.exp(), log_q), kl_divergence(log_q, log_p)
        return (1 - self.lam) * forward + self.lam * reverse


@dataclass(frozen=True)
class JensenShannon(Loss):
    """``lam KL(q || m) + (1 - lam) KL(p || m)``, ``m = (1 - lam) p + lam q``; SSLD is lam = 0.5."""

    name = "jsd"
    paper = f"{_PAPER}; SSLD: arXiv 2103.05959"

    lam: float = 0.9
    """Share of the student in the mixture, between 0 and 1."""

    def __post_init__(self) -> None:
        """Refuse a mixture of one: its value is 0 whatever the student says."""
        self.require("lam", 0 < self.lam < 1, "must lie between 0 and 1")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher), log_probs(student)
        log_m = log_mixture(log_p, log_q, self.lam)
        of_student, of_teacher = kl_divergence(log_q, log_m), kl_divergence(log_p, log_m)
        return self.lam * of_student + (1 - self.lam) * of_teacher


@dataclass(frozen=True)
class TotalVariation(Loss):
    """``1/2 sum_c |p_c - q_c|``."""

    name = "tvd"
    paper = _PAPER

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Without unit, 0 to 1. Labels are not looked at."""
        return 0.5 * (log_probs(teacher).exp() - log_probs(student).exp()).abs().sum(-1)


@dataclass(frozen=True)
class SkewForward(Loss):
    """``-sum_c p_c log(lam p_c + (1 - lam) q_c)``: skewed forward KL without the teacher's entropy."""

    name = "skew_forward"
    paper = _PAPER

    lam: float = 0.1
    """Share of the teacher in the mixture, 0 up to 1."""

    def __post_init__(self) -> None:
        """Refuse a mixture without the student."""
        self.require("lam", 0 <= self.lam < 1, "must lie in 0 up to 1")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher), log_probs(student)
        return soft_cross_entropy(log_p.exp(), log_mixture(log_q, log_p, self.lam))


@dataclass(frozen=True)
class SkewReverse(Loss):
    """``KL(q || (1 - lam) p + lam q)``: skewed reverse KL, with a gradient through the mixture."""

    name = "skew_reverse"
    paper = _PAPER

    lam: float = 0.1
    """Share of the student in the mixture, 0 up to 1."""

    def __post_init__(self) -> None:
        """Refuse a mixture of the student alone: its value is 0 whatever it says."""
        self.require("lam", 0 <= self.lam < 1, "must lie in 0 up to 1")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher), log_probs(student)
        return kl_divergence(log_q, log_mixture(log_p, log_q, self.lam))


def log_mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """``log((1 - share) a + share b)``, exact where one of them underflows; share in 0 up to 1."""
    if share == 0:
        return log_a
    return torch.logaddexp(log_a + math.log1p(-share), log_b + math.log(share))
