from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES
from trainer.losses.probabilities import without_target


def test_the_target_is_left_out_and_the_others_keep_their_order():
    logits = torch.arange(12.0).reshape(3, 4)
    left = without_target(logits, torch.tensor([0, 2, 3]))
    assert left.tolist() == [[1, 2, 3], [4, 5, 7], [8, 9, 10]]


def test_weighted_by_the_teacher_it_is_kd():
    """KL(p||q) = TCKD + (1 - p_y) NCKD, the paper's eq. 4."""
    student, teacher, labels = batch(samples=1)
    off_target = 1 - (teacher / 4).softmax(1)[0, labels[0]].item()
    dkd = LOSSES["dkd"](alpha=1.0, beta=off_target, temperature=4.0)
    torch.testing.assert_close(dkd(student, teacher, labels), LOSSES["kd"]()(student, teacher, labels))


def authors_way(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """NCKD as in mdistiller: 1000 taken off the target's logit."""
    mask = 1000.0 * F.one_hot(labels, student.shape[1])
    p = F.softmax(teacher / temperature - mask, dim=1)
    log_q = F.log_softmax(student / temperature - mask, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


def test_non_target_term_agrees_with_the_authors_implementation():
    student, teacher, labels = batch()
    ours = LOSSES["dkd"](alpha=0.0, beta=1.0, temperature=4.0)(student, teacher, labels)
    torch.testing.assert_close(ours, authors_way(student, teacher, labels, 4.0))


def test_two_classes_have_no_non_target_term():
    student, teacher, labels = batch(classes=2)
    with_beta = LOSSES["dkd"](beta=8.0)(student, teacher, labels)
    torch.testing.assert_close(with_beta, LOSSES["dkd"](beta=0.0)(student, teacher, labels))
