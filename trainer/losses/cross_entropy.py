"""Cross-entropy with the labels: the term that needs no teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from trainer.losses.contract import Labels, Logits, Loss, PerSample


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """``-sum_c y_c log q_c`` with ``y = (1 - eps) onehot + eps / C``, batch mean, in nats."""

    name = "ce"
    paper = "label smoothing: Szegedy et al., arXiv 1512.00567"
    needs_teacher = False
    needs_labels = True

    label_smoothing: float = 0.0
    """eps, 0 to 1 (Szegedy et al., arXiv 1512.00567, section 7)."""

    def __post_init__(self) -> None:
        """Refuse a smoothing outside 0 to 1."""
        self.require("label_smoothing", 0 <= self.label_smoothing <= 1, "must lie in 0 to 1")

    def formula(self, student: Logits, teacher: Logits | None, labels: Labels) -> PerSample:
        """The teacher is not looked at."""
        return F.cross_entropy(student, labels, label_smoothing=self.label_smoothing, reduction="none")
