from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES


def test_binary_kl_is_the_sum_of_two_outcome_divergences():
    student, teacher, labels = batch()
    s, t = (torch.sigmoid(x / 2.0) for x in (student, teacher))
    pairs_s, pairs_t = torch.stack([s, 1 - s], -1), torch.stack([t, 1 - t], -1)
    expected = 4.0 * F.kl_div(pairs_s.log(), pairs_t, reduction="sum") / len(labels)
    torch.testing.assert_close(LOSSES["binary_kl"]()(student, teacher, labels), expected)


def test_bkd_is_least_where_the_sigmoids_are_the_teachers_probabilities():
    _, teacher, labels = batch()
    p = teacher.softmax(1)
    best = torch.logit(p).requires_grad_()
    LOSSES["bkd"]()(best, teacher, labels).backward()
    assert best.grad.abs().max().item() < 1e-12
