"""Wrong numbers are found without waiting for the device, and named before anything is kept."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from cache_builder.format import DataError
from tests.trainer.runs import assembled, config, next_batches, write_digits_cache
from trainer.losses import LOSSES, DivergedError
from trainer.objective.objective import Objective, Term
from trainer.objective.value_checks import ValueChecks
from trainer.objective.written import parse_objective
from trainer.run.loop import train, train_step
from trainer.run.metrics import TrainMeter
from trainer.run.run_folder import RunFolder
from trainer.run.state import Keeper


def batch(classes=5):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, classes, generator=generator)
    return student, teacher, torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("samples", ["all", "labelled"])
def test_a_term_never_waits_for_the_device(name, samples):
    """These tensors have no numbers: whoever looks at one gets an error. Buffers of losses have some."""
    objective = Objective([Term(name=name, samples=samples)], torch.tensor([5, 4, 3, 2, 1]))
    shape = (4, 5) if objective.views == 1 else (2, 4, 5)
    finds_rows = samples == "labelled" and LOSSES[name].couples_samples
    with FakeTensorMode(allow_non_fake_inputs=True):
        student, teacher = torch.zeros(shape, requires_grad=True), torch.zeros(shape)
        labels = torch.zeros(4, dtype=torch.int64)
        with pytest.raises(DynamicOutputShapeException) if finds_rows else nullcontext():
            objective(student, teacher, labels, 0)[0].backward()


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        ("teacher", DataError, "'kd': teacher logits are not finite in steps 1 to 7"),
        ("labels", DataError, "'ce': labels must lie in 0 to 4, others were found in steps 1 to 7"),
        ("student", DivergedError, "'ce': student logits are not finite in steps 1 to 7: it diverged"),
    ],
)
def test_the_term_and_the_steps_are_named(place, kind, message):
    objective = Objective(parse_objective("ce + kd", "imagenet"))
    values = dict(zip(("student", "teacher", "labels"), batch(), strict=True))
    objective(**values, epoch=0)
    broken = {**values, place: values[place].clone()}
    broken[place][1] = -1 if place == "labels" else torch.nan
    objective(**broken, epoch=0)
    objective(**values, epoch=0)
    with pytest.raises(kind, match=message):
        objective.checks.ask(7)
    objective.checks.ask(8)  # it was said once


def test_wrong_data_comes_before_the_divergence_that_it_causes():
    checks = ValueChecks(["ce", "kd"])
    checks.begin(20)
    checks.note(torch.tensor([[False, False, True], [False, False, True]]), 5)
    checks.note(torch.tensor([[False, False, False], [True, False, False]]), 5)
    with pytest.raises(DataError, match=r"'kd': teacher logits are not finite in steps 21 to 30"):
        checks.ask(30)


def test_what_any_process_found_ends_all():
    checks = ValueChecks(["ce"])
    checks.note(torch.zeros(1, 3, dtype=torch.bool), 5)
    with pytest.raises(DivergedError, match="in step 1:"):
        checks.ask(1, lambda found: torch.tensor([[0.0, 0.0, 1.0]]))


def test_a_label_out_of_range_ends_in_a_sentence_not_in_the_kernel():
    student, teacher, labels = batch()
    objective = Objective(parse_objective("ce*1 + dkd*1 + pld*1", "imagenet"))
    total, _ = objective(student, teacher, labels + 3, 0)
    assert torch.isfinite(total)
    with pytest.raises(DataError, match="'ce': labels must lie in 0 to 4"):
        objective.checks.ask()


def test_weights_of_wrong_numbers_are_never_written(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    with assembled(tmp_path / "a", cache) as (run, stream):
        folder, meter = RunFolder(tmp_path / "a", 3), TrainMeter(run.accelerator.device)
        folder.begin(run.config)
        keeper = Keeper(run, folder, meter)
        train_step(run, next_batches(run, stream), 0, 0.01, meter)
        keeper.step = 1
        keeper.save()
        with torch.no_grad():
            next(run.student.parameters()).fill_(torch.nan)
        for step in (1, 2):
            train_step(run, next_batches(run, stream), step, 0.01, meter)
            keeper.step = step + 1
        with pytest.raises(DivergedError, match="in steps 2 to 3"):
            keeper.save()
        assert folder.checkpoints.newest().step == 1


def test_a_run_that_diverges_keeps_its_good_checkpoint(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    settings = {"optimizer": "sgd", "lr": 1e9, "student": "tests.trainer.runs:without_state"}
    with pytest.raises(DivergedError, match=r"loss 'ce': student logits are not finite in steps 1 to 5"):
        train(config(tmp_path / "a", cache, **settings))
    assert RunFolder(tmp_path / "a", 3).checkpoints.newest() is None
