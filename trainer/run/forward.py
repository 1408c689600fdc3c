"""One micro-batch: onto the device, through the student, into the objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from trainer.objective.objective import combined_teachers
from trainer.objective.reduction import Counts
from trainer.replay.batches import Batch

if TYPE_CHECKING:
    from trainer.run.assemble import Run


class DeviceBatch(NamedTuple):
    """A micro-batch of B samples in n views on the device."""

    images: Tensor
    """float32 [n B, 3, S, S], normalised, view-major."""
    labels: Tensor | None
    """int64 [B], -1 where there is none; None where no sample of the run has one."""
    teacher: Tensor | None
    """Logits float32 [B, C], with two views [2, B, C]; of several teachers [M, ...]."""


class Outcome(NamedTuple):
    """What a student made of a micro-batch."""

    total: Tensor
    """The objective, with its graph."""
    values: dict[str, Tensor]
    """Each term before its weight, detached."""
    answer: Tensor
    """Logits of what the student would answer, [n B, C], detached."""
    taught: Tensor
    """Logits of the head that learns the teacher's, [n B, teacher's C], detached; mostly the answer."""


def to_device(run: Run, batch: Batch) -> DeviceBatch:
    """Copy, normalise and decode."""
    device = run.accelerator.device
    images = run.normalise(batch.images.to(device, non_blocking=True))
    labels = batch.labels.to(device, non_blocking=True) if run.dataset.labelled else None
    taught = [
        decoder(records.to(device, non_blocking=True))
        for decoder, records in zip(run.decoders, batch.records, strict=True)
    ]
    teacher = None
    if taught:
        teacher = by_view(torch.stack(taught) if len(taught) > 1 else taught[0], run.plan.views_per_sample)
    return DeviceBatch(images, labels, teacher)


def counts_of(run: Run, batches: Sequence[Batch]) -> Counts | None:
    """What a step's sums are divided by; None where every micro-batch counts alike.

    Labels are counted on the host, before they travel; with several processes, all of them meet here.
    """
    if not run.objective.counts_labelled:
        return None
    number = sum(int((batch.labels >= 0).sum()) for batch in batches) / len(batches)
    labelled = torch.tensor(number, dtype=torch.float64)
    if run.accelerator.num_processes > 1:
        labelled = run.accelerator.reduce(labelled.to(run.accelerator.device), reduction="mean")
    return Counts(float(run.plan.samples_per_micro_batch), labelled)


def outcome_of(
    run: Run,
    model: Callable[[Tensor], Any],
    batch: DeviceBatch,
    epoch: int,
    counts: Counts | None = None,
) -> Outcome:
    """The objective of a model, the run's own or a copy of it, in training mode. ``epoch`` counts from 0.

    ``counts``: those of the step; None = this micro-batch alone.
    """
    views = run.plan.views_per_sample
    main, aux = both_heads(run, model(batch.images))
    aux_by_view = None if aux is None else by_view(aux, views)
    total, values = run.objective(
        by_view(main, views), batch.teacher, batch.labels, epoch, aux_by_view, counts=counts
    )
    answer = answer_of(run, main.detach(), None if aux is None else aux.detach())
    own_head = run.config.teacher_classes is not None and aux is not None
    return Outcome(total, values, answer, aux.detach() if own_head and aux is not None else answer)


def both_heads(run: Run, output: Any) -> tuple[Tensor, Tensor | None]:
    """(main, aux) logits [n B, C] of what a student gave in training mode."""
    main, aux = output if run.head is not None else (output, None)
    return main, aux


def answer_of(run: Run, main: Tensor, aux: Tensor | None) -> Tensor:
    """The logits of one answer from those of the heads."""
    return main if run.head is None or aux is None else run.head.answer(main, aux)


def by_view(logits: Tensor, views: int) -> Tensor:
    """[..., n B, C] to [..., n, B, C]; with one view, as it is."""
    return logits if views == 1 else logits.reshape(*logits.shape[:-2], views, -1, logits.shape[-1])


def per_image(run: Run, batch: DeviceBatch) -> tuple[Tensor | None, Tensor | None]:
    """Labels [n B] and logits [n B, C] of the teacher, or of all teachers as one: a row per image."""
    labels = None if batch.labels is None else batch.labels.repeat(run.plan.views_per_sample)
    teacher = batch.teacher
    if teacher is not None and len(run.decoders) > 1:
        teacher = combined_teachers(teacher)
    return labels, None if teacher is None else teacher.reshape(-1, teacher.shape[-1])
