"""From values per sample to the number that is minimised: masks, and batches that count unequally."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.losses.cases import batch_for, every_loss, make
from trainer.objective.objective import Objective
from trainer.objective.reduction import Counts, reduced
from trainer.objective.written import parse_objective

WHERE = torch.tensor([True, False, True, True, False, True])


@every_loss
def test_masked_is_sliced(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss)
    masked = reduced(loss, student, teacher, labels, WHERE)
    sliced = loss(student[..., WHERE, :], teacher[..., WHERE, :], labels[WHERE])
    torch.testing.assert_close(masked, sliced, rtol=1e-12, atol=1e-14)
    (ours,), (theirs,) = (torch.autograd.grad(value, student) for value in (masked, sliced))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


@every_loss
def test_where_nothing_counts_it_is_zero_and_part_of_the_graph(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss)
    for count in (None, 0.0, torch.tensor(0.0), 2.5):
        value = reduced(loss, student, teacher, labels, torch.zeros(6, dtype=torch.bool), count)
        (gradient,) = torch.autograd.grad(value, student)
        assert value == 0
        assert not gradient.any()


SOME = "ce(samples=labelled)*0.5 + dkd(samples=labelled) + kd"


def gradient_of(text, rows, counts=None, where=None):
    """Of the mean over parts of a batch, each with its own rows."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 12, 5, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 4, -1, -1, -1, -1, -1, 1, -1])
    objective = Objective(parse_objective(text, "imagenet"))
    parts = [
        objective(
            student[part], teacher[part], labels[part], 0,
            counts=counts, where=None if where is None else where[part],
        )[0]
        for part in rows
    ]  # fmt: skip
    (gradient,) = torch.autograd.grad(torch.stack(parts).mean(), student)
    return gradient


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_unequal_parts_add_up_to_the_whole(parts):
    """Micro-batches with 5, 0 and 1 labelled samples: the gradient is that of one batch."""
    rows = [slice(start, start + 12 // parts) for start in range(0, 12, 12 // parts)]
    counts = Counts(12 / parts, torch.tensor(6 / parts))
    torch.testing.assert_close(
        gradient_of(SOME, rows, counts), gradient_of(SOME, [slice(None)]), rtol=1e-12, atol=1e-15
    )
    alone = gradient_of(SOME, rows)
    assert not torch.allclose(alone, gradient_of(SOME, [slice(None)]), rtol=1e-2)


def test_a_mask_and_labels_count_together():
    where = torch.tensor([True, True, False, True, True, True, True, False, True, True, True, False])
    rows = [slice(0, 4), slice(4, 8), slice(8, 12)]
    counts = Counts(9 / 3, 5 / 3)
    torch.testing.assert_close(
        gradient_of(SOME, rows, counts, where),
        gradient_of(SOME, [slice(None)], where=where),
        rtol=1e-12,
        atol=1e-15,
    )


def test_a_coupled_loss_weighs_as_many_samples_as_it_sees():
    rows = [slice(0, 6), slice(6, 12)]
    parts = gradient_of("dist(samples=labelled)", rows, Counts(6.0, 3.0))
    first = gradient_of("dist(samples=labelled)", [slice(0, 6)])
    torch.testing.assert_close(parts[:6], first[:6] * 5 / 6)
