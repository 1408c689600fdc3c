"""Losses that see every class as a yes or no of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from trainer.losses.contract import Labels, Logits, Loss, PerSample
from trainer.losses.probabilities import log_probs


@dataclass(frozen=True)
class BinaryKL(Loss):
    """``T^2 sum_c KL(Bern(sigmoid(t_c / T)) || Bern(sigmoid(s_c / T)))``, batch mean, in nats.

    Dual-Head KD's term, arXiv 2411.08937. Made for an auxiliary head (``--aux-head``): with cross-entropy on
    the main one it is Dual-Head KD. It sees the level of the logits. The authors clamp probabilities at 1e-8;
    here the logarithms are exact.
    """

    name = "binary_kl"
    paper = "Yang et al., Dual-Head KD, arXiv 2411.08937, KDD 2025"

    temperature: float = 2.0
    """T > 0."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        s, t = student / self.temperature, teacher / self.temperature
        yes = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
        no = (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
        return self.temperature**2 * (yes + no).sum(-1)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """``mean over B and C of BCE(p_c, sigmoid(s_c))``, p the teacher's softmax, in nats, T = 1.

    BKD as in OFA-KD's repository, arXiv 2310.19444.
    """

    name = "bkd"
    paper = "as in OFA-KD, arXiv 2310.19444"

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        target = log_probs(teacher).exp()
        return F.binary_cross_entropy_with_logits(student, target, reduction="none").mean(-1)
