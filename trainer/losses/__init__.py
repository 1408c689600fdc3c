"""The losses by name. To add one: a frozen dataclass with a ``formula``, and a line in ``LOSSES``."""

from trainer.losses.contract import DivergedError, Labels, Logits, Loss, Scalar
from trainer.losses.cross_entropy import CrossEntropy
from trainer.losses.dkd import DecoupledDistillation
from trainer.losses.kd import KnowledgeDistillation
from trainer.losses.pld import PlackettLuce
from trainer.losses.recipes import RECIPES

LOSSES: dict[str, type[Loss]] = {
    "ce": CrossEntropy,
    "kd": KnowledgeDistillation,
    "dkd": DecoupledDistillation,
    "pld": PlackettLuce,
}

__all__ = ["LOSSES", "RECIPES", "DivergedError", "Labels", "Logits", "Loss", "Scalar"]
