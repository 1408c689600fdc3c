"""Hinton's distillation, its limit of infinite temperature, and its forms with a power for a temperature."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from trainer.losses.contract import Labels, Logits, Loss, PerSample
from trainer.losses.probabilities import kl_divergence, log_probs


@dataclass(frozen=True)
class KnowledgeDistillation(Loss):
    """``T^2 KL(p_T || q_T)``, batch mean, in nats (Hinton, Vinyals, Dean, arXiv 1503.02531).

    Scaled as in mdistiller's ``KD.py``: with T^2, without the cross-entropy.
    """

    name = "kd"
    paper = "Hinton et al., arXiv 1503.02531"

    temperature: float = 4.0
    """T > 0; both softmaxes are taken of logits / T."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        return self.temperature**2 * kl_divergence(log_p, log_q)


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """``mean over B and C of (s - t)^2``: squared error of the raw logits (Kim et al., arXiv 2105.08919).

    As the authors' code has it (``nn.MSELoss``); the text has ``1/2 ||s - t||^2`` per sample. Used without
    cross-entropy. Unlike kd's limit of a large T it does not forgive a shift of all logits.
    """

    name = "mse"
    paper = "Kim et al., arXiv 2105.08919, IJCAI 2021"
    weighs = "all"

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        return F.mse_loss(student, teacher, reduction="none").mean(-1)


@dataclass(frozen=True)
class TransformedTeacherMatching(Loss):
    """``KL(p^(g) || q)``, ``p^(g) = p^g / sum p^g``, batch mean, in nats.

    Zheng & Yang, arXiv 2402.11148. The power is a temperature 1/g of the teacher alone: the student
    stays untempered. No T^2.
    """

    name = "ttm"
    paper = "Zheng & Yang, arXiv 2402.11148, ICLR 2024"
    unconfirmed = "gamma and weight for ImageNet"

    gamma: float = 0.1
    """g > 0; 0.1 or 0.2 in the authors' scripts."""

    def __post_init__(self) -> None:
        """Refuse a power that is not positive."""
        self.require("gamma", self.gamma > 0, "must be positive")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        return kl_divergence(log_probs(teacher, 1 / self.gamma), log_probs(student))


@dataclass(frozen=True)
class WeightedTransformedTeacherMatching(TransformedTeacherMatching):
    """ttm, each sample times ``U = sum_i p_i^g`` of its teacher, batch mean (arXiv 2402.11148).

    U is large where the teacher is unsure; computed as a log-sum-exp, so that no power underflows.
    """

    name = "wttm"

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        weight = (self.gamma * log_probs(teacher)).logsumexp(-1).exp()
        divergence = kl_divergence(log_probs(teacher, 1 / self.gamma), log_probs(student))
        return weight * divergence
