"""A target that moves from the student to the teacher while training goes on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.losses.contract import Labels, Logits, PerSample, Scalar, StatefulLoss
from trainer.losses.probabilities import log_probs, soft_cross_entropy


@dataclass(frozen=True, eq=False)
class TemporallyAdaptive(StatefulLoss):
    """``-sum_c y_c log q_c``, ``y = softmax((1 - t) s + t teacher)``, s detached, T = 1.

    TAID, arXiv 2501.16937. Batch mean, in nats. t goes from ``start`` to ``end``: after each step with value
    L, ``m = momentum m + (1 - momentum) (L_prev - L) / L_prev`` and t grows by ``step sigmoid(m) (1 - t)``,
    at least along a straight line over the run (as released). The first step only notes L.
    """

    name = "taid"
    paper = "Shing et al., TAID, arXiv 2501.16937, ICLR 2025"
    unconfirmed = "published for language models: start and step for images are unknown"

    start: float = 0.4
    """First t, 0 to 1."""
    end: float = 1.0
    """Last t, 0 to 1."""
    momentum: float = 0.99
    """Of the relative change of the value."""
    step: float = 5e-4
    """Largest adaptive growth of t in one step."""

    def __post_init__(self) -> None:
        """Refuse shares outside 0 to 1; begin at ``start``."""
        super().__post_init__()
        self.require("start", 0 <= self.start <= 1, "must lie in 0 to 1")
        self.require("end", self.start <= self.end <= 1, "must lie in start to 1")
        # float64: a step may move t by less than a float32 can tell.
        for name, value in (("ratio", self.start), ("trend", 0.0), ("last_value", torch.inf)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def formula(self, student: Logits, teacher: Logits, labels: Labels | None) -> PerSample:
        """Labels are not looked at."""
        ratio = self.get_buffer("ratio").to(student.dtype)
        target = log_probs((1 - ratio) * student.detach() + ratio * teacher).exp()
        return soft_cross_entropy(target, log_probs(student))

    def advance(self, value: Scalar, progress: float) -> None:
        """Move t."""
        ratio, trend, last = (self.get_buffer(name) for name in ("ratio", "trend", "last_value"))
        if torch.isfinite(last):
            change = (last - value) / (last + 1e-15)
            trend.mul_(self.momentum).add_((1 - self.momentum) * change)
            ratio.copy_(self._next_ratio(ratio, trend, progress))
        last.copy_(value)

    def _next_ratio(self, ratio: Tensor, trend: Tensor, progress: float) -> Tensor:
        line = self.start + (self.end - self.start) * progress
        grown = ratio + self.step * trend.sigmoid() * (1 - ratio)
        return grown.clamp_min(line).clamp_max(self.end)
