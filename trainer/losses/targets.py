"""Cross-entropies to a target that is made from the teacher's probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from trainer.losses.contract import Labels, Logits, Loss, PerSample
from trainer.losses.probabilities import kl_divergence, log_probs, soft_cross_entropy


@dataclass(frozen=True)
class SoftLabel(Loss):
    """``-sum_c y_c log softmax(s / T)_c``, batch mean, in nats: FKD's and TinyViT's stored labels.

    y of the teacher's probabilities at T = 1: "hard" its top class; "smoothing" its largest probability, the
    rest spread evenly; "marginal_smoothing" its top k, the rest spread evenly over the other classes;
    "marginal_renorm" its top k divided by their sum. Without hard labels.
    """

    name = "soft_label"
    paper = "FKD, arXiv 2112.01528; TinyViT, arXiv 2207.10666"

    kind: Literal["hard", "smoothing", "marginal_smoothing", "marginal_renorm"] = "marginal_smoothing"
    """What the target keeps of the teacher."""
    k: int = 5
    """Classes that the marginal kinds keep; at most C."""
    temperature: float = 1.0
    """T > 0, of the student."""

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive, and an empty head."""
        super().__post_init__()
        self.require("k", self.k >= 1, "must be at least 1")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        return soft_cross_entropy(self._target(teacher), log_probs(student, self.temperature))

    def _target(self, teacher: Tensor) -> Tensor:
        classes = teacher.shape[1]
        k = min(self.k, classes) if self.kind.startswith("marginal") else 1
        p = log_probs(teacher).exp()
        top, index = p.topk(k, dim=1)
        if self.kind in ("hard", "marginal_renorm"):
            return torch.zeros_like(p).scatter(1, index, top / top.sum(1, keepdim=True))
        # The sum of the others, not 1 minus the top: a sure teacher's rest would drown in rounding.
        even = p.scatter(1, index, 0.0).sum(1, keepdim=True) / max(classes - k, 1)
        return even.expand(-1, classes).scatter(1, index, top)


@dataclass(frozen=True)
class TopKMatching(Loss):
    """``KL(p' || q')`` over the teacher's k largest classes, batch mean, in nats (FIRST, arXiv 2408.12168).

    ``p', q'``: softmaxes over all classes at T = 1, cut to the k ids, epsilon added, over their sum: the
    released "linear" form.
    """

    name = "first"
    paper = "FIRST, arXiv 2408.12168"
    unconfirmed = "published for language models; its recalibrated teacher is not part of the loss"

    k: int = 5
    """Classes that are compared; at most C."""
    epsilon: float = 1e-6
    """Added to each probability."""

    def __post_init__(self) -> None:
        """Refuse an empty head, and a negative epsilon."""
        self.require("k", self.k >= 1, "must be at least 1")
        self.require("epsilon", self.epsilon > 0, "must be positive")

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        index = teacher.topk(min(self.k, teacher.shape[1]), dim=1).indices
        log_p, log_q = self._cut(teacher, index), self._cut(student, index)
        return kl_divergence(log_p, log_q)

    def _cut(self, logits: Tensor, index: Tensor) -> Tensor:
        kept = log_probs(logits).exp().gather(1, index) + self.epsilon
        return (kept / kept.sum(1, keepdim=True)).log()


@dataclass(frozen=True)
class PartialLabel(Loss):
    """``-1/2 (log q_i + log q_j)``, i and j the teacher's two largest classes, batch mean, in nats.

    Self-distillation with partial labels, arXiv 2402.10482.
    """

    name = "partial_label"
    paper = "Self-distillation with partial labels, arXiv 2402.10482"

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        top = teacher.topk(2, dim=1).indices
        return -log_probs(student).gather(1, top).mean(1)


@dataclass(frozen=True)
class PerturbedTarget(Loss):
    """``sum_c p_c [-log q_c + sum_m epsilon_m (1 - q_c)^m]``, batch mean, in nats, T = 1.

    PTLoss, arXiv 2305.05010. Cross-entropy's series in (1 - q), its leading orders perturbed. The paper
    searches a coefficient per class and order on validation data; here an order's coefficient is shared by
    the classes.
    """

    name = "ptloss"
    paper = "PTLoss, arXiv 2305.05010, AAAI 2024"
    unconfirmed = "coefficients (searched per task in the paper; the default is ours)"

    epsilon: tuple[float, ...] = (1.0,)
    """Coefficients of the orders 1, 2, ...; empty is forward_ce."""

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        log_q = log_probs(student)
        missing = 1 - log_q.exp()
        cost = -log_q
        for order, coefficient in enumerate(self.epsilon, start=1):
            cost = cost + coefficient * missing**order
        return (log_probs(teacher).exp() * cost).sum(-1)


@dataclass(frozen=True)
class OneForAll(Loss):
    """``-sum_c [(p_c + 1{c=y})^eps - 1{c=y}] log q_c``, batch mean, in nats, T = 1.

    OFA-KD, arXiv 2310.19444. The logit term of the method, whose student stages are projected to logits in
    the same way there.
    """

    name = "ofa"
    paper = "Hao et al., OFA-KD, arXiv 2310.19444, NeurIPS 2023"
    needs_labels = True

    epsilon: float = 1.0
    """Exponent, 1 to 1.5 in the paper: above 1 the label counts more."""

    def __post_init__(self) -> None:
        """Refuse an exponent that is not positive."""
        self.require("epsilon", self.epsilon > 0, "must be positive")

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> PerSample:
        """With exponent 1 it is forward_ce."""
        label = F.one_hot(labels, student.shape[1]).to(teacher.dtype)
        target = (log_probs(teacher).exp() + label) ** self.epsilon - label
        return soft_cross_entropy(target, log_probs(student))


@dataclass(frozen=True)
class Ensemble(Loss):
    """``-sum_c y_c log q_c``, y the mean of the teachers' softmaxes, batch mean, in nats, T = 1.

    MEAL V2, arXiv 2009.08453. The teacher is [teachers, batch, classes], one per ``--cache``. Without hard
    labels; the method's discriminator is left out, as its authors allow.
    """

    name = "ensemble"
    paper = "Shen & Savvides, MEAL V2, arXiv 2009.08453"
    takes_ensemble = True

    def formula(
        self, student: Logits, teacher: Float[Tensor, "*teachers batch classes"], labels: Labels | None
    ) -> PerSample:
        """One teacher [batch, classes] is an ensemble of one. Labels are not looked at."""
        target = log_probs(teacher).exp()
        if target.ndim == 3:
            target = target.mean(0)
        return soft_cross_entropy(target, log_probs(student))
