from __future__ import annotations

import math

import pytest
import torch

from tests.trainer.losses.cases import batch
from tests.trainer.losses.reference import adakd_ratios
from trainer.losses import LOSSES


def temperature_of(loss):
    return 1 + 20 * torch.sigmoid(loss.get_parameter("theta").detach()).item()


@pytest.mark.parametrize("inner", ["kd", "dkd"])
def test_ctkd_is_its_inner_loss_at_the_learned_temperature(inner):
    student, teacher, labels = batch()
    loss = LOSSES["ctkd"](loss=inner)
    with torch.no_grad():
        loss.get_parameter("theta").fill_(-2.0)
    torch.testing.assert_close(
        loss(student, teacher, labels),
        LOSSES[inner](temperature=temperature_of(loss))(student, teacher, labels),
        check_dtype=False, rtol=1e-6, atol=0,
    )  # fmt: skip


def test_the_temperatures_gradient_is_reversed_along_a_cosine():
    student, teacher, labels = batch()
    loss = LOSSES["ctkd"]()
    theta = loss.get_parameter("theta")
    plain = numerical_slope(loss, student, teacher, labels)
    for epoch in (1, 5, 10, 99):
        loss.begin_epoch(epoch)
        (gradient,) = torch.autograd.grad(loss(student, teacher, labels), theta)
        factor = -0.5 * (1 - math.cos(math.pi * min(epoch, 10) / 10))
        assert gradient.item() == pytest.approx(factor * plain, rel=1e-3)
    assert factor == -1


def numerical_slope(loss, student, teacher, labels):
    values = []
    for theta in (1 + 1e-3, 1 - 1e-3):
        with torch.no_grad():
            loss.get_parameter("theta").fill_(theta)
            values.append(loss(student, teacher, labels).item())
    with torch.no_grad():
        loss.get_parameter("theta").fill_(1.0)
    return (values[0] - values[1]) / 2e-3


def test_descent_raises_what_the_student_has_to_do():
    """The student's optimiser walks theta uphill."""
    student, teacher, labels = batch()
    loss = LOSSES["ctkd"]()
    loss.begin_epoch(10)
    optimizer = torch.optim.SGD(loss.joint_parameters(), lr=0.1)
    before = loss(student, teacher, labels).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(student, teacher, labels).backward()
        optimizer.step()
    assert loss(student, teacher, labels).item() > before


def test_mixstd_forgets_scale():
    student, teacher, labels = batch()
    loss = LOSSES["mixstd"]()
    torch.testing.assert_close(loss(5 * student, 0.3 * teacher, labels), loss(student, teacher, labels))


def test_adakd_keeps_the_hardest():
    student, teacher, labels = batch()
    loss = LOSSES["adakd"](ratio=0.5)
    distances = (student.softmax(1).sqrt() - teacher.softmax(1).sqrt()).norm(dim=1)
    hardest = distances.topk(3).indices
    torch.testing.assert_close(
        loss(student, teacher, labels), LOSSES["adakd"]()(student[hardest], teacher[hardest], labels[:3])
    )


def test_adakd_without_sharpness_is_reverse_kl_at_its_temperature():
    student, teacher, labels = batch()
    value = LOSSES["adakd"](sharpness=0.0, temperature=2.0)(student, teacher, labels)
    torch.testing.assert_close(value, 4 * LOSSES["reverse_kl"]()(student / 2, teacher / 2, labels))


def test_the_kept_share_moves_as_released():
    values = [2.0, 1.8, 1.2, 1.0, 1.0, 0.8, 3.0, 5.0, 6.0, 9.0, 2.0, 0.1, 0.1, 0.1]
    loss = LOSSES["adakd"](ratio=0.8)
    found = []
    for value in values:
        loss.advance(torch.tensor(value), progress=1.0)
        found.append(loss.get_buffer("kept").item())
    assert found == pytest.approx(adakd_ratios(values, 0.8), rel=1e-9)
    assert len(set(found)) > 4


def test_the_kept_share_rests_while_the_run_warms_up():
    loss = LOSSES["adakd"](ratio=0.8)
    for value in (2.0, 0.1, 5.0):
        loss.advance(torch.tensor(value), progress=0.04)
    assert loss.get_buffer("kept").item() == 0.8
