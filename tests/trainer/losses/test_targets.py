from __future__ import annotations

import pytest
import torch

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES


def target_of(loss, teacher):
    """The target of a soft cross-entropy, from its gradient: d/ds = (q - target) / B at sum(target) = 1."""
    student = torch.zeros_like(teacher, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(student, teacher, None), student)
    return 1 / teacher.shape[1] - len(teacher) * gradient


TEACHER = torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04]], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"kind": "hard"}, [1, 0, 0, 0, 0]),
        ({"kind": "smoothing"}, [0.5, 0.125, 0.125, 0.125, 0.125]),
        ({"kind": "marginal_smoothing", "k": 2}, [0.5, 0.3, 0.2 / 3, 0.2 / 3, 0.2 / 3]),
        ({"kind": "marginal_smoothing", "k": 5}, [0.5, 0.3, 0.1, 0.06, 0.04]),
        ({"kind": "marginal_smoothing", "k": 9}, [0.5, 0.3, 0.1, 0.06, 0.04]),
        ({"kind": "marginal_renorm", "k": 2}, [0.625, 0.375, 0, 0, 0]),
    ],
)
def test_soft_labels_keep_what_their_kind_says(fields, target):
    found = target_of(LOSSES["soft_label"](**fields), TEACHER)
    torch.testing.assert_close(found, torch.tensor([target], dtype=torch.float64))


def test_partial_labels_are_the_two_largest():
    found = target_of(LOSSES["partial_label"](), TEACHER)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, 0, 0, 0]], dtype=torch.float64))


def test_ofa_with_exponent_one_and_ptloss_without_coefficients_are_forward_ce():
    student, teacher, labels = batch()
    forward = LOSSES["forward_ce"]()(student, teacher, labels)
    torch.testing.assert_close(LOSSES["ofa"]()(student, teacher, labels), forward)
    torch.testing.assert_close(LOSSES["ptloss"](epsilon=())(student, teacher, labels), forward)


def test_ptloss_with_the_negative_series_cancels_cross_entropy():
    """-log q = sum_m (1 - q)^m / m, so coefficients -1/m leave what is beyond their order."""
    _, teacher, labels = batch()
    student = torch.log(torch.tensor([[0.7, 0.3]], dtype=torch.float64))
    orders = tuple(-1 / m for m in range(1, 400))
    value = LOSSES["ptloss"](epsilon=orders)(student, student, labels[:1])
    assert value.item() == pytest.approx(0, abs=1e-10)
    assert teacher.shape[1] == 7


def test_first_sees_nothing_beyond_its_k():
    student, teacher, labels = batch()
    index = teacher.topk(2, dim=1).indices
    other = student.detach().clone()
    tail = torch.ones_like(other, dtype=torch.bool).scatter(1, index, False)
    # Move mass about in the tail, keeping its sum.
    other[tail] = (
        other.masked_fill(~tail, -torch.inf).logsumexp(1, keepdim=True) - torch.log(torch.tensor(5.0))
    ).expand_as(other)[tail]
    loss = LOSSES["first"](k=2)
    torch.testing.assert_close(loss(other, teacher, labels), loss(student, teacher, labels).detach())


def test_an_ensemble_is_taught_by_the_mean_of_the_softmaxes():
    student, teacher, labels = batch()
    teachers = torch.stack([teacher, teacher.flip(0), -teacher])
    mean = teachers.softmax(-1).mean(0).log()
    expected = LOSSES["forward_ce"]()(student, mean, labels)
    torch.testing.assert_close(LOSSES["ensemble"]()(student, teachers, labels), expected)
    alone = LOSSES["ensemble"]()(student, teacher, labels)
    torch.testing.assert_close(alone, LOSSES["forward_ce"]()(student, teacher, labels))
    assert torch.equal(LOSSES["ensemble"]()(student, teacher[None], labels), alone)
