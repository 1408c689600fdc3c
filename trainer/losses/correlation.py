"""Losses that ask for the teacher's relations between probabilities, not for the probabilities themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, PerSample, Scalar
from trainer.losses.probabilities import cosine, entropy, log_probs, pearson


@dataclass(frozen=True)
class StrongerTeacher(Loss):
    """``beta T^2 (1 - mean_b rho(q_b, p_b)) + gamma T^2 (1 - mean_c rho(q_c, p_c))``, without unit.

    Huang et al., arXiv 2205.10536. rho: Pearson correlation, over the classes of each sample
    (inter) and over the batch of each class (intra). The authors' trainer multiplies both by a further 2.
    """

    name = "dist"
    paper = "Huang et al., arXiv 2205.10536, NeurIPS 2022"
    couples_samples = True

    beta: float = 1.0
    """Weight of the relation between classes."""
    gamma: float = 1.0
    """Weight of the relation between samples."""
    temperature: float = 1.0
    """The paper's tau > 0; its square multiplies both terms."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> Scalar:
        """Without unit. Labels are not looked at."""
        p, q = log_probs(teacher, self.temperature).exp(), log_probs(student, self.temperature).exp()
        inter, intra = 1 - pearson(q, p).mean(), 1 - pearson(q.T, p.T).mean()
        return self.temperature**2 * (self.beta * inter + self.gamma * intra)


@dataclass(frozen=True)
class RobustnessReinforced(Loss):
    """``w T^2 [(1 - mean_b |cos(q_b, p_b)|) + (1 - mean_c |cos(q_c, p_c)|)]`` (Kim et al., arXiv 2311.13934).

    The value term, as released: cosines without centring. The released rank term counts ranks with two
    argsorts; its gradient is zero everywhere, so it is left out. The method also mixes in a pruned teacher
    (0.7 / 0.3, two caches can do it) and augmented inputs, which are the cache's views here.
    """

    name = "r2kd"
    paper = "Kim et al., arXiv 2311.13934, TKDE 2024"
    unconfirmed = "ImageNet settings"
    couples_samples = True

    temperature: float = 4.0
    """T > 0."""
    weight: float = 2.0
    """w, of the value term."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> Scalar:
        """Without unit. Labels are not looked at."""
        p, q = log_probs(teacher, self.temperature).exp(), log_probs(student, self.temperature).exp()
        rows, columns = 1 - cosine(q, p).abs().mean(), 1 - cosine(q.T, p.T).abs().mean()
        return self.weight * self.temperature**2 * (rows + columns)


@dataclass(frozen=True)
class CorrelationMatching(Loss):
    """``T^2 mean_b [(1 - w)(1 - rho) + w (1 - rank rho)]``: value and rank correlation, by difficulty.

    After Correlation Matching (arXiv 2410.06561), whose abstract names the parts and not the formulas, so
    these are ours: rho is Pearson's of the probabilities at T; the rank correlation is Pearson's of soft
    ranks ``R_i = sum_j sigmoid((x_i - x_j) / rank_temperature)`` of the raw logits, among the teacher's k
    largest (ranks in a far tail are noise, and all pairs of 1,000 classes cost 1,000 times kd);
    ``w = H(p) / log C``: the less sure the teacher, the more its order counts.
    """

    name = "cmkd"
    paper = "Correlation Matching, arXiv 2410.06561"
    unconfirmed = "every formula and default: only the abstract could be read, the details are ours"

    temperature: float = 1.0
    """T > 0, of the probabilities."""
    k: int = 32
    """Classes that are ranked; at most C."""
    rank_temperature: float = 1.0
    """Softness of the ranks, in units of a logit; > 0."""

    def __post_init__(self) -> None:
        """Refuse temperatures that are not positive, and fewer than two ranks."""
        super().__post_init__()
        self.require("rank_temperature", self.rank_temperature > 0, "must be positive")
        self.require("k", self.k >= 2, "must be at least 2")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Without unit. Labels are not looked at."""
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        head = teacher.topk(min(self.k, teacher.shape[1]), dim=1).indices
        ranks = pearson(self._soft_ranks(student.gather(1, head)), self._soft_ranks(teacher.gather(1, head)))
        difficulty = entropy(log_p) / math.log(teacher.shape[1])
        values = pearson(log_q.exp(), log_p.exp())
        terms = (1 - difficulty) * (1 - values) + difficulty * (1 - ranks)
        return self.temperature**2 * terms

    def _soft_ranks(self, logits: Tensor) -> Tensor:
        differences = logits[:, :, None] - logits[:, None, :]
        return torch.sigmoid(differences / self.rank_temperature).sum(2)
