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


def test_squared_error_is_the_limit_of_a_hot_kd_up_to_the_mean():
    """T -> infinity: KD is 1 / (2 C) times the squared error of centred logits (arXiv 2105.08919)."""
    student, teacher, labels = batch()
    centred = student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True)
    hot = LOSSES["kd"](temperature=1e4)(student, teacher, labels)
    torch.testing.assert_close(hot, 0.5 * LOSSES["mse"]()(*centred, labels), rtol=1e-3, atol=0)


def test_ttm_is_kd_with_an_untempered_student():
    student, teacher, labels = batch()
    hot_teacher = LOSSES["kd"](temperature=1.0)(student, teacher / 5, labels)
    torch.testing.assert_close(LOSSES["ttm"](gamma=0.2)(student, teacher, labels), hot_teacher)


def test_wttm_weighs_each_sample_by_its_power_sum():
    student, teacher, labels = batch(samples=2)
    weights = (teacher.softmax(1) ** 0.3).sum(1)
    each = [LOSSES["ttm"](gamma=0.3)(student[i : i + 1], teacher[i : i + 1], None) for i in range(2)]
    expected = (weights[0] * each[0] + weights[1] * each[1]) / 2
    torch.testing.assert_close(LOSSES["wttm"](gamma=0.3)(student, teacher, labels), expected)
