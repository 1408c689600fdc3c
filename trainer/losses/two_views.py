"""Losses that see a weak and a strong view of every sample in one batch, and mlkd's form with one view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, PerSample, Scalar, TwoViews
from trainer.losses.probabilities import kl_divergence, log_probs

# The released code gives the strong view to the first three temperatures only.
_STRONG_TEMPERATURES = 3


@dataclass(frozen=True)
class _MultiLevel(Loss):
    """The parts of MLKD on one view."""

    temperatures: tuple[float, ...] = (4.0, 3.0, 5.0, 2.0, 6.0)
    """T of the summed parts, each > 0."""

    def __post_init__(self) -> None:
        """Refuse temperatures that are not positive, and none at all."""
        fine = len(self.temperatures) > 0 and all(t > 0 for t in self.temperatures)
        self.require("temperatures", fine, "must all be positive")

    def _masked_parts(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``sum_T [m_b T^2 KL + m_c CC + m_b BC]`` of one view."""
        p = log_probs(teacher).exp()
        samples, classes = _lower_half(p.max(1).values), _lower_half(p.sum(0))
        value = student.new_zeros(())
        for temperature in self.temperatures:
            value = value + samples * _divergence(student, teacher, temperature)
            p_t, q_t = log_probs(teacher, temperature).exp(), log_probs(student, temperature).exp()
            value = value + classes * _class_relations(p_t, q_t) + samples * _sample_relations(p_t, q_t)
        return value


@dataclass(frozen=True)
class MultiLevel(_MultiLevel):
    """``sum_T [m_b KL + m_c CC + m_b BC](weak) + sum_{T1..T3} KL(strong) + sum_{T4..} KL(weak)``.

    Jin et al., CVPR 2023. KL with T^2, batch mean; ``CC = ||P'P - Q'Q||^2 / C``, ``BC = ||PP' - QQ'||^2 / B``
    of the softmaxes at T. As the released code, which gave the published numbers, computes it: its masks
    (samples and classes up to the median confidence) multiply values that are already means, so they only
    scale by their fraction (about 1/2); the strong divergences at the fourth and fifth temperature use the
    weak logits; CC and BC of the strong view are computed and dropped. The sum is before the outer weight.
    """

    name = "mlkd"
    paper = "Jin et al., Multi-level logit distillation, CVPR 2023"
    views = 2
    couples_samples = True

    def formula(self, student: TwoViews, teacher: TwoViews, labels: Labels | None) -> Scalar:
        """Labels are not looked at."""
        (weak_s, strong_s), (weak_t, strong_t) = student, teacher
        value = self._masked_parts(weak_s, weak_t)
        for index, temperature in enumerate(self.temperatures):
            strong = index < _STRONG_TEMPERATURES
            pair = (strong_s, strong_t) if strong else (weak_s, weak_t)
            value = value + _divergence(*pair, temperature)
        return value


@dataclass(frozen=True)
class MultiLevelSingleView(_MultiLevel):
    """``sum_T [m_b KL + m_c CC + m_b BC]``: mlkd without strong augmentation.

    As in RLD's repository, arXiv 2408.07703.
    """

    name = "mlkd_single_view"
    paper = "Jin et al., CVPR 2023; single view: RLD's repository, arXiv 2408.07703"
    couples_samples = True

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> Scalar:
        """Labels are not looked at."""
        return self._masked_parts(student, teacher)


@dataclass(frozen=True)
class CrossView(Loss):
    """``w1 WV + w2 CV``: consistency within and across a weak and a strong view (CRLD, arXiv 2412.14493).

    ``WV = mean_b m_w [kl(s_w, t_w) + kl(s_s, t_s)]``, ``CV = mean_b m_s [kl(s_s, t_w) + kl(s_w, t_s)]``, kl
    with T^2; m_w (m_s) is 1 where the teacher's confidence in the weak (strong) view reaches its threshold.
    Masked samples stay in the denominator. The cross-entropies of both views are the objective's.
    """

    name = "crld"
    paper = "CRLD, arXiv 2412.14493, ACM MM 2024"
    unconfirmed = "thresholds and weights are those of a re-uploaded CIFAR-100 configuration"
    views = 2

    temperature: float = 1.0
    """T > 0; 4 for CIFAR-100."""
    weak_threshold: float = 0.9
    """Confidence of the teacher in the weak view, 0 to 1."""
    strong_threshold: float = 0.2
    """Confidence of the teacher in the strong view, 0 to 1."""
    weights: tuple[float, float] = (2.0, 0.5)
    """w1 (within views), w2 (across views)."""

    def formula(self, student: TwoViews, teacher: TwoViews, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        confidence = log_probs(teacher).max(-1).values.exp()
        thresholds = confidence.new_tensor([self.weak_threshold, self.strong_threshold])
        sure = (confidence >= thresholds[:, None]).to(student.dtype)
        within = sure[0] * kl_divergence(log_p, log_q).sum(0)
        across = sure[1] * kl_divergence(log_p, log_q.flip(0)).sum(0)
        return self.temperature**2 * (self.weights[0] * within + self.weights[1] * across)


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_p, log_q = log_probs(teacher, temperature), log_probs(student, temperature)
    return temperature**2 * kl_divergence(log_p, log_q).mean()


def _class_relations(p: Tensor, q: Tensor) -> Tensor:
    return (p.T @ p - q.T @ q).square().sum() / p.shape[1]


def _sample_relations(p: Tensor, q: Tensor) -> Tensor:
    return (p @ p.T - q @ q.T).square().sum() / p.shape[0]


def _lower_half(values: Tensor) -> Tensor:
    """Fraction of values up to the median; that of an even number lies between two of them."""
    middle = torch.quantile(values, 0.5)
    return (values <= middle).to(values.dtype).mean()
