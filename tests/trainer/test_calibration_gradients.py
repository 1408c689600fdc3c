"""Calibration cannot import the losses: its own gradients must be theirs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cache_builder.calibration.fidelity import gradients
from tests.cache_builder.calibration.test_calibrate import logits_of
from trainer.losses import LOSSES


@pytest.mark.parametrize("name", ["kd1", "kd4", "mse", "tad"])
def test_gradients_are_those_of_the_losses(name: str) -> None:
    index = ["kd1", "kd4", "standardised", "mse", "tad"].index(name)
    loss = {
        "kd1": LOSSES["kd"](temperature=1.0), "kd4": LOSSES["kd"](temperature=4.0),  # type: ignore[call-arg]
        "mse": LOSSES["mse"](), "tad": LOSSES["tad"](),
    }[name]  # fmt: skip
    teacher = torch.from_numpy(logits_of(20, seed=1))
    student = torch.from_numpy(logits_of(20, seed=2)).requires_grad_()
    (wanted,) = torch.autograd.grad(loss(student, teacher, None), student)
    found = torch.from_numpy(gradients(student.detach().numpy(), teacher.numpy())[index])
    assert F.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.9999
