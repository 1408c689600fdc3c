"""Losses that rewrite logits before another loss sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cache_builder.format.manifest import NamedConfiguration
from trainer.losses.contract import Labels, Logits, Loss, PerSample, Values
from trainer.losses.probabilities import (
    deviation,
    falling_order,
    kl_divergence,
    label_logit,
    log_probs,
)
from trainer.losses.wrapper import InnerLoss, WrapperLoss

# The authors' guard against logits that are all equal.
_DEVIATION_EPSILON = 1e-7


_KD_2 = NamedConfiguration(name="kd", configuration={"temperature": 2.0})
_KD_4 = NamedConfiguration(name="kd", configuration={"temperature": 4.0})


@dataclass(frozen=True, eq=False)
class Standardized(WrapperLoss):
    """The inner loss of ``z = (x - mean) / (std + 1e-7)`` of both logits.

    Sun et al., arXiv 2403.01427. Mean and deviation (n - 1) per sample; the student's carry gradient.
    Around mlkd the authors standardise only its divergences, here everything is.
    """

    name = "standardized"
    paper = "Sun et al., arXiv 2403.01427, CVPR 2024"
    weighs = "all"
    needs_teacher = False

    loss: InnerLoss = _KD_2
    """The inner loss; the authors' KD + LS has T = 2."""

    def formula(self, student: Tensor, teacher: Tensor | None, labels: Labels | None) -> Values:
        """Two views are standardised like one."""
        standard = None if teacher is None else _standardize(teacher)
        return self.inner.formula(_standardize(student), standard, labels)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Swap(WrapperLoss):
    """The inner loss of ``t'``: t with ``t_y`` and ``max t`` exchanged, the label's logit and the largest.

    SWAP of RLD's repository, arXiv 2408.07703.
    """

    name = "swap"
    paper = "SWAP, as in RLD's repository, arXiv 2408.07703"
    needs_labels = True

    loss: InnerLoss = _KD_4
    """The inner loss."""

    def formula(self, student: Tensor, teacher: Tensor, labels: Labels) -> Values:
        """A teacher that is right stays as it is."""
        return self.inner.formula(student, _by_view(_swapped, teacher, labels), labels)


@dataclass(frozen=True, eq=False)
class Sort(WrapperLoss):
    """The inner loss of ``t'``: t's values dealt anew, ``t'_{pi_k}`` the k-th largest; pi_1 is the label.

    SortKD, arXiv 2508.16544. The other classes follow in the order they had. A teacher that is
    right stays as it is.
    """

    name = "sort"
    paper = "SortKD, arXiv 2508.16544, IEEE SPL 2025"
    needs_labels = True

    loss: InnerLoss = _KD_4
    """The inner loss."""

    def formula(self, student: Tensor, teacher: Tensor, labels: Labels) -> Values:
        """Values are kept, places change."""
        return self.inner.formula(student, _by_view(_sorted, teacher, labels), labels)


@dataclass(frozen=True)
class RefinedSelf(Loss):
    """``T^2 KL(softmax(r / T) || q_T)``, r the student's own logits, detached, ``r_y = s_y + max s`` (RC).

    The self-refined target of RLD's repository; batch mean, in nats, no teacher. The label's new logit is a
    sum of two, so a shift of all logits does change it.
    """

    name = "refined_self"
    paper = "RC, as in RLD's repository, arXiv 2408.07703"
    needs_teacher = False
    needs_labels = True

    temperature: float = 4.0
    """T > 0."""

    def formula(self, student: Logits, teacher: Logits | None, labels: Labels) -> PerSample:
        """The teacher is not looked at."""
        own = student.detach()
        refined = label_logit(own, labels) + own.max(1).values
        target = own.scatter(1, labels[:, None], refined[:, None])
        log_p, log_q = log_probs(target, self.temperature), log_probs(student, self.temperature)
        return self.temperature**2 * kl_divergence(log_p, log_q)


def _standardize(logits: Tensor) -> Tensor:
    return (logits - logits.mean(-1, keepdim=True)) / (deviation(logits) + _DEVIATION_EPSILON)


def _by_view(rewrite: object, teacher: Tensor, labels: Tensor) -> Tensor:
    """Rewrite [B, C], or each of two views."""
    assert callable(rewrite)
    if teacher.ndim == 2:
        return rewrite(teacher, labels)  # type: ignore[no-any-return]
    return torch.stack([rewrite(view, labels) for view in teacher])


def _swapped(teacher: Tensor, labels: Tensor) -> Tensor:
    largest, place = teacher.max(1, keepdim=True)
    of_label = teacher.gather(1, labels[:, None])
    return teacher.scatter(1, place, of_label).scatter(1, labels[:, None], largest)


def _sorted(teacher: Tensor, labels: Tensor) -> Tensor:
    values = teacher.sort(dim=1, descending=True).values
    return torch.empty_like(teacher).scatter(1, falling_order(teacher, labels), values)
