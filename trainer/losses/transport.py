"""Optimal transport between the samples of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.losses.contract import Labels, Logits, Loss, Scalar
from trainer.losses.probabilities import log_probs


@dataclass(frozen=True)
class Sinkhorn(Loss):
    """``factor sum_ij P_ij W_ij``, ``W_ij = sum_c |q_ic - p_jc|`` (SinKD, arXiv 2402.17110).

    P: ``exp(-W / epsilon)``, its rows, then its columns normalised, ``iterations`` times; gradients flow
    through it. As released: T = 2 whatever the constructor is told, the last step normalises columns. The
    sum over the batch is not divided by its size. Needs every pair of samples: B^2 C operations.
    """

    name = "sinkd"
    paper = "Cui et al., SinKD, arXiv 2402.17110, COLING 2024"
    unconfirmed = (
        "published for language models; the released factors differ (0.8e-3 to 2e-3) between scripts"
    )
    couples_samples = True

    temperature: float = 2.0
    """T > 0."""
    epsilon: float = 0.1
    """Entropic smoothing, in units of W; > 0."""
    iterations: int = 20
    """Sinkhorn's normalisations."""
    factor: float = 1e-3
    """Outer factor of the released loss."""

    def __post_init__(self) -> None:
        """Refuse a temperature or smoothing that is not positive, and no normalisation at all."""
        super().__post_init__()
        self.require("epsilon", self.epsilon > 0, "must be positive")
        self.require("iterations", self.iterations >= 1, "must be at least 1")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> Scalar:
        """Normalised in logs, so that a small epsilon cannot underflow. Labels are not looked at."""
        q, p = log_probs(student, self.temperature).exp(), log_probs(teacher, self.temperature).exp()
        cost = torch.cdist(q, p, p=1)
        plan = -cost / self.epsilon
        for _ in range(self.iterations):
            plan = plan - plan.logsumexp(1, keepdim=True)
            plan = plan - plan.logsumexp(0, keepdim=True)
        return self.factor * (plan.exp() * cost).sum()
