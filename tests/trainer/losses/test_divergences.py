from __future__ import annotations

import math

import pytest
import torch

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES
from trainer.losses.divergences import log_mixture


def values(names_and_fields, student, teacher):
    return [LOSSES[name](**fields)(student, teacher, None) for name, fields in names_and_fields]


def test_forward_ce_is_kl_and_the_teachers_entropy():
    student, teacher, _ = batch()
    p = teacher.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    forward, kd = values([("forward_ce", {}), ("kd", {"temperature": 1.0})], student, teacher)
    torch.testing.assert_close(forward, kd + entropy)


def test_reverse_kl_is_kd_of_exchanged_arguments():
    student, teacher, _ = batch()
    torch.testing.assert_close(
        LOSSES["reverse_kl"]()(student, teacher, None), LOSSES["kd"](temperature=1.0)(teacher, student, None)
    )


def test_mixtures_at_their_ends_are_the_plain_divergences():
    student, teacher, _ = batch()
    skew, forward = values([("skew_forward", {"lam": 0.0}), ("forward_ce", {})], student, teacher)
    assert skew == forward
    skew, reverse = values([("skew_reverse", {"lam": 0.0}), ("reverse_kl", {})], student, teacher)
    assert skew == reverse
    mixed = values([("symmetric_kl", {"lam": 1.0}), ("symmetric_kl", {"lam": 0.0})], student, teacher)
    assert mixed == [reverse, forward]


def test_jsd_of_equal_shares_is_symmetric_and_below_log_2():
    student, teacher, _ = batch(scale=20.0)
    jsd = LOSSES["jsd"](lam=0.5)
    there, back = jsd(student, teacher, None), jsd(teacher, student, None)
    torch.testing.assert_close(there, back)
    assert 0 < there.item() < math.log(2)


def test_total_variation_of_disjoint_certainties_is_one():
    sure = 200 * torch.eye(4)
    assert LOSSES["tvd"]()(sure, sure.roll(1, 1), None).item() == pytest.approx(1)
    assert LOSSES["tvd"]()(sure, sure, None).item() == 0


def test_a_mixture_is_exact_where_one_side_underflows():
    a, b = torch.tensor([0.0, -800.0]), torch.tensor([-800.0, 0.0])
    torch.testing.assert_close(log_mixture(a, b, 0.25), torch.tensor([math.log(0.75), math.log(0.25)]))
