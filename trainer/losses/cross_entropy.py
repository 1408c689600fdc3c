"""Cross-entropy with the labels: the term that needs no teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from cache_builder.format.errors import ConfigError
from trainer.losses.contract import Labels, Logits, Loss, Scalar


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """``-sum_c y_c log q_c`` with ``y = (1 - eps) onehot + eps / C``, batch mean, in nats."""

    name: ClassVar[str] = "ce"
    needs_teacher: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    label_smoothing: float = 0.0
    """eps, 0 to 1 (Szegedy et al., arXiv 1512.00567, section 7)."""

    def __post_init__(self) -> None:
        """Refuse a smoothing outside 0 to 1."""
        if not 0 <= self.label_smoothing <= 1:
            raise ConfigError(f"loss 'ce': label_smoothing must lie in 0 to 1, got {self.label_smoothing}")

    def formula(self, student: Logits, teacher: Logits | None, labels: Labels) -> Scalar:
        """The teacher is not looked at."""
        return F.cross_entropy(student, labels, label_smoothing=self.label_smoothing)
