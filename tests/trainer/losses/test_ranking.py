from __future__ import annotations

import torch

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES
from trainer.losses.probabilities import falling_order


def test_the_label_is_first_then_falling_logits_with_ties_by_id():
    teacher = torch.tensor([[0.5, 2.0, 2.0, -1.0, 3.0]])
    assert falling_order(teacher, torch.tensor([3])).tolist() == [[3, 4, 1, 2, 0]]


def test_gradient_is_the_papers():
    """sum_k a_k (softmax over what is left - onehot of pi_k)."""
    student, teacher, labels = batch(samples=2, classes=5)
    (grad,) = torch.autograd.grad(LOSSES["pld"]()(student, teacher, labels), student)
    expected = torch.zeros_like(grad)
    order, weights = falling_order(teacher, labels), teacher.softmax(1)
    for row in range(2):
        for k in range(5):
            left = order[row, k:]
            expected[row, left] += weights[row, left[0]] * student[row, left].softmax(0) / 2
            expected[row, left[0]] -= weights[row, left[0]] / 2
    torch.testing.assert_close(grad, expected.detach())


def test_a_certain_teacher_makes_it_cross_entropy():
    student, _, labels = batch()
    teacher = torch.nn.functional.one_hot(labels, 7).double() * 1000
    torch.testing.assert_close(
        LOSSES["pld"]()(student, teacher, labels), LOSSES["ce"]()(student, None, labels)
    )
