from __future__ import annotations

import pytest
import torch

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES


def test_equal_logits_cost_nothing():
    student, _, labels = batch()
    assert LOSSES["kd"]()(student, student.detach(), labels).item() == pytest.approx(0, abs=1e-15)


def test_gradient_is_temperature_times_probability_difference():
    student, teacher, labels = batch()
    value = LOSSES["kd"](temperature=3.0)(student, teacher, labels)
    (grad,) = torch.autograd.grad(value, student)
    expected = 3.0 * ((student / 3).softmax(1) - (teacher / 3).softmax(1)) / len(labels)
    torch.testing.assert_close(grad, expected)


def test_a_certain_teacher_makes_it_cross_entropy():
    student, _, labels = batch()
    teacher = torch.nn.functional.one_hot(labels, 7).double() * 1000
    value = LOSSES["kd"](temperature=1.0)(student, teacher, labels)
    torch.testing.assert_close(value, LOSSES["ce"]()(student, None, labels))
