"""Optimiser and learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from trainer.run.config import DecidedSettings


def make_optimizer(
    student: nn.Module, settings: DecidedSettings, joint: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; vectors (norms, biases) decay only where asked for.

    ``joint``: parameters of losses that are trained along; they never decay.
    """
    groups = parameter_groups(student, settings)
    if joint:
        groups.append({"params": list(joint), "weight_decay": 0.0})
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def parameter_groups(student: nn.Module, settings: DecidedSettings) -> list[dict[str, object]]:
    """Parameters with weight decay, then those without."""
    trainable = [p for p in student.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim > 1 or settings.decay_all]
    spared = [p for p in trainable if not (p.ndim > 1 or settings.decay_all)]
    groups = [(decayed, settings.weight_decay), (spared, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """One learning rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def lr_at(step: int, steps: int, warmup_steps: float, peak: float) -> float:
    """Linear warm-up from peak / warmup_steps, then a cosine to zero at ``steps``."""
    if step < warmup_steps:
        return peak * min(1.0, (step + 1) / warmup_steps)
    done = (step - warmup_steps) / max(1.0, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))
