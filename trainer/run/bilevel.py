"""The update of losses that learn from samples the student is not trained on (TGeo-KD, arXiv 2312.15112).

The student takes a virtual step on its next batch, ``theta' = theta - lr grad L(theta, phi)``; the
cross-entropy of theta' on samples that were set aside says in which direction phi, the parameters of the
loss, should move. Student, optimiser and statistics stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import default_collate

from cache_builder.format import ConfigError
from trainer.replay.batches import in_views
from trainer.replay.order import epoch_order
from trainer.replay.view_dataset import Replayed
from trainer.run.forward import DeviceBatch, answer_of, both_heads, outcome_of, per_image

if TYPE_CHECKING:
    from trainer.run.assemble import Run

EVERY = 10
"""Optimiser steps from one update to the next."""
# What torch says of a layer whose gradient has none, and of one that hides it (once_differentiable).
_NOT_TWICE = ("not implemented", "not have been used in the graph")


class Learner(Protocol):
    """A loss with ``needs_held_out``."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the update moves."""

    def observe(self, teacher: Tensor, labels: Tensor) -> None:
        """Look at a batch: teacher logits [n, C] and labels [n]."""

    def learn_from(self, gradients: Iterable[Tensor]) -> None:
        """One step down these gradients, in the order of ``parameters()``."""


def is_due(run: Run, step: int) -> bool:
    """Whether an update comes before a step, counted from 0."""
    return run.set_aside is not None and (step + 1) % EVERY == 0


def update(run: Run, batch: DeviceBatch, step: int, lr: float) -> None:
    """One update of every such loss. ``batch``: the first micro-batch of the step that comes next."""
    losses = cast("list[Learner]", run.objective.held_out_losses)
    _observe(run, losses, batch)
    parameters = [parameter for loss in losses for parameter in loss.parameters()]
    slopes = iter(run.accelerator.reduce(gradients(run, parameters, batch, step, lr), reduction="mean"))
    for loss in losses:
        loss.learn_from([next(slopes) for _ in loss.parameters()])


def _observe(run: Run, losses: Sequence[Learner], batch: DeviceBatch) -> None:
    """Every process shows its losses the batches of all, so that they stay the same."""
    labels, teacher = run.accelerator.gather(per_image(run, batch))
    labelled = labels >= 0
    for loss in losses:
        loss.observe(teacher[labelled], labels[labelled])


def gradients(
    run: Run, parameters: Sequence[nn.Parameter], batch: DeviceBatch, step: int, lr: float
) -> tuple[Tensor, ...]:
    """Of the held-out cross-entropy after a virtual step of the student, with respect to ``parameters``."""
    theta = {name: value for name, value in run.student.named_parameters() if value.requires_grad}
    try:
        # Fused attention kernels cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            total = outcome_of(run, _student_at(run, theta), batch, run.plan.epoch_of(step)).total
            slopes = torch.autograd.grad(
                total, list(theta.values()), create_graph=True, materialize_grads=True
            )
            pairs = zip(theta.items(), slopes, strict=True)
            moved = {name: value - lr * slope for (name, value), slope in pairs}
            loss = _loss_on_set_aside(run, moved, step)
            # Without a label in the batch the losses are not part of it; otherwise they must be.
            return torch.autograd.grad(loss, parameters, materialize_grads=not _has_labels(batch))
    except RuntimeError as error:
        if not any(reason in str(error) for reason in _NOT_TWICE):
            raise
        names = ", ".join(repr(loss.name) for loss in run.objective.held_out_losses)
        raise ConfigError(
            f"loss {names} differentiates the student twice, which {run.config.settings.student!r} does not "
            f"allow ({error}): use another student or loss"
        ) from error


def _has_labels(batch: DeviceBatch) -> bool:
    return batch.labels is not None and bool((batch.labels >= 0).any())


def _loss_on_set_aside(run: Run, theta: Mapping[str, Tensor], step: int) -> Tensor:
    """Cross-entropy with the labels of this update's batch of samples that were set aside."""
    assert run.set_aside is not None
    order = epoch_order(run.config.settings.seed, (step + 1) // EVERY, len(run.set_aside))
    share = order[run.plan.rank :: run.plan.world][: run.plan.samples_per_micro_batch]
    items = run.set_aside.__getitems__(in_views(share, run.plan.views_of(step)))
    drawn: Replayed = default_collate(items)
    device = run.accelerator.device
    images = run.normalise(drawn.image.to(device))
    main, aux = both_heads(run, _student_at(run, theta)(images))
    return F.cross_entropy(answer_of(run, main, aux), cast(Tensor, drawn.label).to(device))


def _student_at(run: Run, theta: Mapping[str, Tensor]) -> partial[object]:
    """The student with other parameters; what it does to its running statistics is lost."""
    buffers = {name: value.clone() for name, value in run.student.named_buffers()}
    return partial(functional_call, run.student, {**theta, **buffers})
