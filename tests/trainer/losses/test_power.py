from __future__ import annotations

import pytest
import torch

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES
from trainer.losses.probabilities import EXP_LIMIT, bounded_exp


def kl(student, teacher, labels, temperature):
    return LOSSES["kd"](temperature=temperature)(student, teacher, labels) / temperature**2


def test_abkd_is_kl_at_one_and_zero():
    student, teacher, labels = batch()
    value = LOSSES["abkd"](alpha=1.0, beta=0.0, temperature=4.0)(student, teacher, labels)
    torch.testing.assert_close(value, kl(student, teacher, labels, 4.0))


@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 0.0), (0.0, 0.7), (0.6, -0.6), (0.0, 0.0)])
def test_abkd_is_continuous_where_it_divides_by_zero(alpha, beta):
    student, teacher, labels = batch(scale=1.0)
    limit = LOSSES["abkd"](alpha=alpha, beta=beta)(student, teacher, labels)
    near = LOSSES["abkd"](alpha=alpha + 1e-5, beta=beta + 2e-5)(student, teacher, labels)
    torch.testing.assert_close(near, limit, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("power", [2 / 3, 0.2, -0.4])
def test_redistill_is_an_alpha_beta_divergence(power):
    """Teacher-student: AB(1 + l, -l); student-teacher: AB(-l, 1 + l)."""
    student, teacher, labels = batch(scale=1.0)
    for orientation, alpha, beta in (
        ("teacher_student", 1 + power, -power),
        ("student_teacher", -power, 1 + power),
    ):
        torch.testing.assert_close(
            LOSSES["redistill"](power=power, orientation=orientation)(student, teacher, labels),
            LOSSES["abkd"](alpha=alpha, beta=beta, temperature=1.0)(student, teacher, labels),
        )


def test_redistill_tends_to_kl_at_a_power_of_zero_and_to_reverse_kl_at_minus_one():
    student, teacher, labels = batch(scale=1.0)
    forward, reverse = kl(student, teacher, labels, 1.0), LOSSES["reverse_kl"]()(student, teacher, labels)
    for power, expected in ((1e-5, forward), (0.0, forward), (-1 + 1e-5, reverse), (-1.0, reverse)):
        value = LOSSES["redistill"](power=power)(student, teacher, labels)
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)


def test_the_bounded_exponential_is_smooth_at_its_limit():
    below, at, above = (
        torch.tensor(EXP_LIMIT + d, dtype=torch.float64, requires_grad=True) for d in (-1e-9, 0, 1e-9)
    )
    for x in (below, at, above):
        bounded_exp(x).backward()
        assert x.grad.item() == pytest.approx(
            torch.tensor(EXP_LIMIT, dtype=torch.float64).exp().item(), rel=1e-6
        )
    small = torch.linspace(-100, 59, 50, dtype=torch.float64)
    assert torch.equal(bounded_exp(small), small.exp())
    assert torch.isfinite(bounded_exp(torch.tensor(400.0)))
