from __future__ import annotations

import itertools
import math

import pytest
import torch

from tests.trainer.runs import config
from trainer.run.optim import lr_at, make_optimizer, parameter_groups, set_lr
from trainer.students import cnn3


def test_the_rate_warms_up_linearly_and_falls_to_zero():
    rates = [lr_at(step, 100, 10, 0.5) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == rates[10] == 0.5
    assert rates[55] == pytest.approx(0.25)
    assert rates[-1] == pytest.approx(0.25 * (1 + math.cos(math.pi * 89 / 90)))
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize("warmup", [0.0, 0.4, 100.0])
def test_odd_warm_ups_stay_within_the_peak(warmup):
    rates = [lr_at(step, 100, warmup, 1.0) for step in range(100)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert max(rates) > 0.99


def test_vectors_are_spared_from_weight_decay(tmp_path):
    settings = config(tmp_path, None, weight_decay=0.1)
    student = cnn3()
    decayed, spared = parameter_groups(student, settings)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(student.parameters()))
    (everything,) = parameter_groups(student, settings.model_copy(update={"decay_all": True}))
    assert everything["weight_decay"] == 0.1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_parameters_of_losses_are_trained_along_and_never_decay(tmp_path, optimizer):
    settings = config(tmp_path, None, weight_decay=0.1, decay_all=True, optimizer=optimizer)
    theta = torch.nn.Parameter(torch.ones(()))
    alone, joint = make_optimizer(cnn3(), settings), make_optimizer(cnn3(), settings, [theta])
    assert len(joint.param_groups) == len(alone.param_groups) + 1
    assert joint.param_groups[-1]["params"] == [theta]
    assert joint.param_groups[-1]["weight_decay"] == 0
    theta.grad = torch.tensor(1.0)
    joint.step()
    assert theta < 1


@pytest.mark.parametrize(
    ("name", "kind", "momentum"),
    [("sgd", torch.optim.SGD, 0.9), ("sgd", torch.optim.SGD, 0.0), ("adamw", torch.optim.AdamW, 0.9)],
)
def test_optimisers(tmp_path, name, kind, momentum):
    settings = config(tmp_path, None, optimizer=name, momentum=momentum, weight_decay=1e-4)
    optimizer = make_optimizer(cnn3(), settings)
    assert type(optimizer) is kind
    if name == "sgd":
        assert optimizer.defaults["nesterov"] == (momentum > 0)
    set_lr(optimizer, 0.123)
    assert {group["lr"] for group in optimizer.param_groups} == {0.123}
