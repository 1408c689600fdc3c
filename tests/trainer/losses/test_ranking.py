from __future__ import annotations

import math
from itertools import combinations

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


def test_ldrld_is_the_authors_recursion_over_masked_softmaxes():
    """As in LDRLD.py: every pair, then all d, with 1000 taken off the other classes' logits."""
    student, teacher, labels = batch(classes=9)
    depth, temperature, gamma = 4, 4.0, 0.05
    top = student.topk(depth, dim=1).indices
    subsets = [*combinations(range(depth), 2), tuple(range(depth))]
    local = torch.zeros((), dtype=torch.float64)
    for subset in subsets:
        weight = 1.0
        if len(subset) == 2:
            a, b = subset[0] + 1, subset[1] + 1
            weight = 2 / (1.5 + abs(a - b)) * math.exp(-gamma * (a + b))
        local = local + weight * masked_kd(student, teacher, top[:, list(subset)], temperature, keep=True)
    rest = masked_kd(student, teacher, top, temperature, keep=False)
    expected = 10.5 * local / len(subsets) + 7 * rest
    torch.testing.assert_close(LOSSES["ldrld"](depth=depth)(student, teacher, labels), expected)


def masked_kd(student, teacher, index, temperature, keep):
    mask = torch.full_like(teacher, float(keep)).scatter(1, index, float(not keep))
    p = (teacher / temperature - 1000.0 * mask).softmax(1)
    log_q = (student / temperature - 1000.0 * mask).log_softmax(1)
    return torch.nn.functional.kl_div(log_q, p, reduction="batchmean") * temperature**2


def test_ldrld_with_all_classes_has_no_rest():
    student, teacher, labels = batch(classes=5)
    assert LOSSES["ldrld"](depth=7, beta=0.0)(student, teacher, labels) == LOSSES["ldrld"](depth=7)(
        student, teacher, labels
    )
