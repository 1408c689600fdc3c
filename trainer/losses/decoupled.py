"""Losses that split the classes (label against rest, top K against tail, groups) and weigh the parts anew."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cache_builder.format.errors import ConfigError
from trainer.losses.contract import ClassCounts, Labels, Logits, Loss, PerSample, Scalar
from trainer.losses.probabilities import (
    kl_divergence,
    label_logit,
    log_probs,
    one_against_rest,
    soft_cross_entropy,
    without_target,
)

# What the authors of RLD put into the place of a class that is left out.
_LEFT_OUT = -1e9


@dataclass(frozen=True)
class DecoupledDistillation(Loss):
    """``T^2 [alpha KL(b^t||b^s) + beta KL(p^t||p^s)]``, batch mean, in nats (Zhao et al., arXiv 2203.08679).

    ``b = (p_y, 1 - p_y)``: label against the rest (TCKD, eq. 6); ``p`` the softmax over the other C - 1
    classes (NCKD). All at temperature T. The authors' code removes the label by subtracting 1000 from its
    logit; here it is left out, which gives the same numbers wherever theirs does not round.
    """

    name = "dkd"
    paper = "Zhao et al., arXiv 2203.08679, CVPR 2022"
    needs_labels = True

    alpha: float = 1.0
    """Weight of the label-against-rest term."""
    beta: float = 8.0
    """Weight of the term among the other classes."""
    temperature: float = 4.0
    """T > 0."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> PerSample:
        """Both terms from log-probabilities, so that a certain teacher loses no precision."""
        student, teacher = student / self.temperature, teacher / self.temperature
        target = kl_divergence(one_against_rest(teacher, labels), one_against_rest(student, labels))
        other = kl_divergence(
            log_probs(without_target(teacher, labels)), log_probs(without_target(student, labels))
        )
        return self.temperature**2 * (self.alpha * target + self.beta * other)


@dataclass(frozen=True)
class NormalizedDistillation(Loss):
    """``-p_y log q_y - gamma T^2 sum_{c != y} p'_c log q'_c``, batch mean, in nats.

    Yang et al., arXiv 2303.13005. ``p', q'``: softmax over the other C - 1 classes at T; the first
    term is at T = 1. The cross-entropy with the label that completes the method stands beside it in the
    objective.
    """

    name = "nkd"
    paper = "Yang et al., arXiv 2303.13005, ICCV 2023"
    needs_labels = True

    gamma: float = 1.5
    """Weight of the term among the other classes."""
    temperature: float = 1.0
    """T > 0, of that term."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> PerSample:
        """Cross-entropies, not divergences: at s = t the value is not zero."""
        log_q = label_logit(log_probs(student), labels)
        target = -label_logit(log_probs(teacher), labels).exp() * log_q
        others_t = log_probs(without_target(teacher, labels), self.temperature).exp()
        others_s = log_probs(without_target(student, labels), self.temperature)
        other = self.temperature**2 * soft_cross_entropy(others_t, others_s)
        return target + self.gamma * other


@dataclass(frozen=True)
class RefinedDistillation(Loss):
    """``alpha SCD + beta MCD``, batch mean, in nats (Sun et al., arXiv 2408.07703).

    SCD ``= Ta^2 KL((max p, 1 - max p) || (q_y, 1 - q_y))`` at temperature Ta: the teacher's own top class
    against the student's label. MCD ``= T^2 KL`` over the classes whose teacher logit is below the label's;
    0 where there is none.
    """

    name = "rld"
    paper = "Sun et al., arXiv 2408.07703, ICCV 2025"
    needs_labels = True

    alpha: float = 1.0
    """Weight of SCD."""
    beta: float = 8.0
    """Weight of MCD."""
    temperature: float = 4.0
    """T > 0, of MCD."""
    scd_temperature: float = 1.0
    """Ta > 0, of SCD; the README's example uses T for both."""

    def __post_init__(self) -> None:
        """Refuse temperatures that are not positive."""
        super().__post_init__()
        self.require("scd_temperature", self.scd_temperature > 0, "must be positive")

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> PerSample:
        """Left-out classes get the authors' -1e9 on both sides, so an empty rest costs nothing."""
        sure_t = one_against_rest(teacher / self.scd_temperature, teacher.argmax(1))
        sure_s = one_against_rest(student / self.scd_temperature, labels)
        confidence = self.scd_temperature**2 * kl_divergence(sure_t, sure_s)
        left_out = teacher >= label_logit(teacher, labels)[:, None]
        below_t = log_probs((teacher / self.temperature).masked_fill(left_out, _LEFT_OUT))
        below_s = log_probs((student / self.temperature).masked_fill(left_out, _LEFT_OUT))
        masked = self.temperature**2 * kl_divergence(below_t, below_s)
        return self.alpha * confidence + self.beta * masked


@dataclass(frozen=True)
class TailAwareDivergence(Loss):
    """``D1 + beta a / mean(a) D2``, batch mean, in nats, T = 1 (arXiv 2602.20816).

    D1: KL over the teacher's top k classes and one bucket for the rest; D2: KL of the renormalised rests;
    a: the teacher's mass in the rest. ``D1 + a D2`` is KL. The paper's mean over a sequence is one over the
    batch here.
    """

    name = "tad"
    paper = "Tail-aware divergence, arXiv 2602.20816, ICML 2026"
    unconfirmed = "published for language models: weight and k for images are unknown"
    couples_samples = True
    weighs = "tail"

    k: int = 10
    """Classes outside the bucket; at most C - 1 are taken."""
    beta: float = 2.0
    """Weight of the rest; the paper's best."""

    def __post_init__(self) -> None:
        """Refuse an empty head."""
        self.require("k", self.k >= 1, "must be at least 1")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> Scalar:
        """The weight a / mean(a) is a ratio of log-masses: a sure teacher's tail may underflow."""
        order = teacher.argsort(dim=1, descending=True, stable=True)
        log_p, log_q = log_probs(teacher).gather(1, order), log_probs(student).gather(1, order)
        k = min(self.k, teacher.shape[1] - 1)
        tail_p, tail_q = log_p[:, k:].logsumexp(1), log_q[:, k:].logsumexp(1)
        head = kl_divergence(
            torch.cat([log_p[:, :k], tail_p[:, None]], dim=1),
            torch.cat([log_q[:, :k], tail_q[:, None]], dim=1),
        )
        rest = kl_divergence(log_probs(log_p[:, k:]), log_probs(log_q[:, k:]))
        weight = len(teacher) * tail_p.softmax(0)
        return (head + self.beta * weight * rest).mean()


@dataclass(frozen=True)
class LongTailDistillation(Loss):
    """``T^2 [alpha KL(P'_G||Q_G) + beta sum_G KL(p|G || q|G)]``, batch mean, in nats (arXiv 2506.18496).

    ``P_G, Q_G``: mass of the class groups (head, medium, tail by training count) at temperature T. ``P'_G``
    is rebalanced: scaled so that the batch means of all groups are equal, then renormalised per sample. The
    weights P_G of the exact split of KL are replaced by 1.
    """

    name = "ltkd"
    paper = "Biased Teacher, Balanced Student, arXiv 2506.18496, CVPR 2026"
    unconfirmed = "the rebalancing, alpha, beta and T (ours)"
    needs_class_counts = True
    couples_samples = True

    alpha: float = 1.0
    """Weight of the term between groups."""
    beta: float = 1.0
    """Weight of the terms inside groups."""
    temperature: float = 4.0
    """T > 0."""
    groups: tuple[int, ...] | None = None
    """Per class 0 (head), 1 (medium) or 2 (tail); None: thirds (33/34/33 %) by training count."""

    def prepared(self, counts: ClassCounts) -> LongTailDistillation:
        """Groups from the training counts, unless they were given."""
        return self if self.groups is not None else replace(self, groups=groups_by_count(counts))

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> Scalar:
        """Raises :class:`ConfigError` where nobody said which class is in which group."""
        members = self._members(student)
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        mass_p = torch.stack([log_p[:, group].logsumexp(1) for group in members], dim=1)
        mass_q = torch.stack([log_q[:, group].logsumexp(1) for group in members], dim=1)
        # Dividing by the batch mean, in logs; constants fall out when each sample is renormalised.
        balanced = F.log_softmax(mass_p - mass_p.logsumexp(0), dim=1)
        between = kl_divergence(balanced, mass_q)
        inside = sum(
            (kl_divergence(log_probs(log_p[:, group]), log_probs(log_q[:, group])) for group in members),
            torch.zeros_like(between),
        )
        return self.temperature**2 * (self.alpha * between + self.beta * inside).mean()

    def _members(self, student: Tensor) -> list[Tensor]:
        """The class ids of every group that has any."""
        if self.groups is None:
            raise ConfigError(
                "loss 'ltkd' does not know the class groups: give groups=(0, 1, 2, ...), one per class, or "
                "train with labels (kdtrain takes them from the training counts)"
            )
        if len(self.groups) != student.shape[1]:
            raise ConfigError(f"loss 'ltkd': groups names {len(self.groups)} classes of {student.shape[1]}")
        # Listed on the host: a search on the device would be waited for.
        members = [
            [c for c, of in enumerate(self.groups) if of == group] for group in sorted(set(self.groups))
        ]
        return [torch.tensor(classes, device=student.device) for classes in members]


def groups_by_count(counts: ClassCounts) -> tuple[int, ...]:
    """Head (the most frequent 33 % of the classes), medium (34 %) and tail: 0, 1, 2 per class."""
    classes = len(counts)
    order = counts.argsort(descending=True, stable=True)
    first, second = round(0.33 * classes), round(0.67 * classes)
    groups = torch.ones(classes, dtype=torch.int64)
    groups[order[:first]], groups[order[second:]] = 0, 2
    return tuple(groups.tolist())
