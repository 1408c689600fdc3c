from __future__ import annotations

import torch

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES


def test_todi_weights_are_the_teachers_share():
    student, teacher, labels = batch()
    p, q = teacher.softmax(1), student.softmax(1).detach()
    w = p / (p + q)
    expected = (w * p * (p / q).log() + (1 - w) * q * (q / p).log()).sum(1).mean()
    torch.testing.assert_close(LOSSES["todi"]()(student, teacher, labels).detach(), expected)


def test_akl_follows_the_half_that_errs():
    """A student wrong in the head alone follows forward KL; one wrong in the tail alone reverse KL."""
    p = torch.tensor([[0.5, 0.2, 0.2, 0.1]], dtype=torch.float64)
    kl, reverse = LOSSES["kd"](temperature=1.0), LOSSES["reverse_kl"]()
    tail_wrong = torch.tensor([[0.5, 0.1, 0.1, 0.3]], dtype=torch.float64).log()
    torch.testing.assert_close(LOSSES["akl"]()(tail_wrong, p.log(), None), reverse(tail_wrong, p.log(), None))
    both_wrong = torch.tensor([[0.3, 0.4, 0.2, 0.1]], dtype=torch.float64).log()
    torch.testing.assert_close(
        LOSSES["akl"]()(both_wrong, p.log(), None),
        0.5 * kl(both_wrong, p.log(), None) + 0.5 * reverse(both_wrong, p.log(), None),
    )


def test_bdkd_prefers_the_direction_of_the_larger_entropy():
    sharp, flat = torch.tensor([[4.0, 0.0, 0.0]]).double(), torch.tensor([[0.5, 0.0, 0.2]]).double()
    forward, reverse = LOSSES["forward_ce"](), LOSSES["reverse_kl"]()
    for student, teacher, weights in ((sharp, flat, (3, 1)), (flat, sharp, (1, 3)), (flat, flat, (1, 1))):
        expected = weights[0] * forward(student, teacher, None) + weights[1] * reverse(student, teacher, None)
        torch.testing.assert_close(LOSSES["bdkd"]()(student, teacher, None), expected)
