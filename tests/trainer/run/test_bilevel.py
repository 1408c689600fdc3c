"""The update of a loss that learns from samples which were set aside."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cache_builder.datasets import LimitedSource, open_source
from cache_builder.format import ConfigError
from tests.trainer.replay_caches import write_replay_cache
from tests.trainer.runs import assembled, next_batches, write_digits_cache
from trainer.replay.order import epoch_order
from trainer.run import bilevel
from trainer.run.forward import outcome_of, to_device
from trainer.run.loop import train_step
from trainer.run.metrics import TrainMeter

LR = 0.1


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


@contextmanager
def begun(tmp_path, cache, **settings):
    """A run with tgeo, the network of the loss already somewhere, and its first micro-batch."""
    with assembled(tmp_path / "run", cache, **{"loss": "tgeo*1 + ce*0.5", **settings}) as (run, stream):
        (loss,) = run.objective.held_out_losses
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in loss.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        yield run, loss, to_device(run, next_batches(run, stream)[0])


def loss_after_a_step(run, batch, step):
    """By hand: move a copy of the student, then look at what was set aside."""
    student = copy.deepcopy(run.student).train()
    total = outcome_of(run, student, batch, run.plan.epoch_of(step)).total
    total.backward()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter -= LR * parameter.grad
    order = epoch_order(run.config.settings.seed, (step + 1) // 10, len(run.set_aside))[:8]
    views = run.plan.views_of(step)
    items = [run.set_aside[int(position), view] for view in views for position in order]
    images = run.normalise(torch.stack([item.image for item in items]))
    with torch.no_grad():
        return F.cross_entropy(student(images), torch.tensor([item.label for item in items]))


@pytest.mark.parametrize("loss", ["tgeo*1 + ce*0.5", "tgeo*1 + mlkd*0.1"])
def test_the_gradient_is_the_numerical_one(tmp_path, cache, loss):
    settings = {"student": "tests.trainer.run.test_bilevel:smooth", "loss": loss, "batch_size": 8}
    with begun(tmp_path, cache, **settings) as (run, tgeo, batch):
        for module in (run.student, run.objective, run.normalise):
            module.double()
        batch = batch._replace(images=batch.images.double(), teacher=batch.teacher.double())
        parameters = list(tgeo.parameters())
        found = bilevel.gradients(run, parameters, batch, 9, LR)
        for parameter, gradient in zip(parameters, found, strict=True):
            place = int(gradient.abs().argmax())
            values = []
            for sign in (1, -1):
                parameter.data.view(-1)[place] += sign * 1e-5
                values.append(loss_after_a_step(run, batch, 9))
                parameter.data.view(-1)[place] -= sign * 1e-5
            numerical = (values[0] - values[1]) / 2e-5
            assert gradient.view(-1)[place].abs() > 1e-6
            torch.testing.assert_close(gradient.view(-1)[place], numerical, rtol=1e-4, atol=1e-9)


def smooth(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(144, num_classes)
    )


def test_the_student_does_not_move(tmp_path, cache):
    with begun(tmp_path, cache) as (run, loss, batch):
        before = copy.deepcopy(run.student.state_dict())
        network = [parameter.clone() for parameter in loss.parameters()]
        means = loss.get_buffer("class_means").clone()
        bilevel.update(run, batch, 9, LR)
        for name, value in run.student.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert all(parameter.grad is None for parameter in run.student.parameters())
        assert run.optimizer.state_dict()["state"] == {}
        assert not any(map(torch.equal, network, loss.parameters()))
        assert not torch.equal(means, loss.get_buffer("class_means"))


def test_it_comes_before_every_tenth_step(tmp_path, cache, monkeypatch):
    updates = []
    real = bilevel.update
    monkeypatch.setattr(
        bilevel,
        "update",
        lambda run, batch, step, lr: updates.append((step, lr)) or real(run, batch, step, lr),
    )
    with assembled(tmp_path / "run", cache, loss="tgeo", epochs=8) as (run, stream):
        meter = TrainMeter(run.accelerator.device)
        for step in range(22):
            train_step(run, next_batches(run, stream), step, 0.001 * step, meter)
    assert updates == [(9, pytest.approx(0.009)), (19, pytest.approx(0.019))]


def test_other_losses_set_nothing_aside(tmp_path, cache):
    with assembled(tmp_path / "run", cache, loss="kd") as (run, _):
        assert run.set_aside is None
        assert not bilevel.is_due(run, 9)


def test_a_teacher_that_is_wrong_is_trusted_less(tmp_path):
    source = LimitedSource(open_source("digits:train"), 320)
    ratios = {}
    for name, labels in (("right", source.labels), ("wrong", np.roll(source.labels, 7))):
        write_replay_cache(tmp_path / f"{name}.zarr", Believed(source, labels), unlabelled=True)
        settings = {"loss": "tgeo(temperature=1)", "student": "cnn3(width=4)", "limit": 320, "epochs": 20}
        with assembled(tmp_path / "run", tmp_path / f"{name}.zarr", **settings) as (run, stream):
            (loss,), meter = run.objective.held_out_losses, TrainMeter(run.accelerator.device)
            for step in range(60):
                batches = next_batches(run, stream)
                batch = to_device(run, batches[0])
                bilevel.update(run, batch, step, 1e-2)
                train_step(run, batches, step, 1e-2, meter)
            answer = outcome_of(run, run.student, batch, 0).answer
            ratios[name] = loss.ratios(answer, batch.teacher, batch.labels).mean().item()
    assert ratios["wrong"] < 0.35  # both began at 0.5
    assert ratios["wrong"] < ratios["right"] - 0.05


class Believed:
    """The same pictures with what a teacher takes them for."""

    def __init__(self, source, labels):
        self._source, self.labels = source, labels
        self.spec, self.ids, self.class_names = source.spec, source.ids, source.class_names

    def __len__(self):
        return len(self._source)

    def read(self, index):
        return self._source.read(index)


class Attends(nn.Module):
    """One attention layer over the rows of an image."""

    def __init__(self, num_classes):
        super().__init__()
        self.queries = nn.Linear(24, 48)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        rows = self.queries(x.permute(0, 2, 1, 3).flatten(2))
        query, key, value = rows.unflatten(-1, (3, 1, 16)).permute(2, 0, 3, 1, 4)
        return self.head(F.scaled_dot_product_attention(query, key, value).squeeze(1).mean(1))


def test_attention_is_differentiated_twice(tmp_path, cache):
    with begun(tmp_path, cache, student="tests.trainer.run.test_bilevel:Attends") as (run, loss, batch):
        found = bilevel.gradients(run, list(loss.parameters()), batch, 9, LR)
        assert all(gradient.abs().sum() > 0 for gradient in found)


class OnlyOnce(torch.autograd.Function):
    """Has a gradient that has none."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        return gradient


class Once(nn.Module):
    """Hides its second derivative: torch would take it for zero."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(192, num_classes)

    def forward(self, x):
        return OnlyOnce.apply(self.head(x.flatten(1)))


class Fused(Attends):
    """Insists on a fused kernel, which has no second derivative."""

    def forward(self, x):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return super().forward(x)


@pytest.mark.parametrize("student", ["Once", "Fused"])
def test_a_student_without_second_derivatives_is_named(tmp_path, cache, student):
    with (
        begun(tmp_path, cache, student=f"tests.trainer.run.test_bilevel:{student}") as (run, _, batch),
        pytest.raises(ConfigError, match=rf"loss 'tgeo' differentiates the student twice.*{student}"),
    ):
        bilevel.update(run, batch, 9, LR)
