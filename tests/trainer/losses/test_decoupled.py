from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cache_builder.format.errors import ConfigError
from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES
from trainer.losses.decoupled import groups_by_count
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


def test_rld_leaves_nothing_where_the_label_is_the_teachers_last_choice():
    student, teacher, _ = batch()
    last = teacher.argmin(1)
    assert LOSSES["rld"](alpha=0.0)(student, teacher, last).item() == 0


def test_rld_without_wrong_classes_is_dkd_with_kds_target_term():
    """A teacher whose top class is the label: nothing but the label is left out."""
    student, teacher, _ = batch()
    best = teacher.argmax(1)
    rld = LOSSES["rld"](alpha=0.0, beta=1.0, temperature=4.0)(student, teacher, best)
    torch.testing.assert_close(
        rld, LOSSES["dkd"](alpha=0.0, beta=1.0, temperature=4.0)(student, teacher, best)
    )


def test_tad_with_the_tails_own_weight_is_kl():
    student, teacher, labels = batch(classes=12)
    falling = teacher.softmax(1).sort(descending=True).values
    own = falling[:, 3:].sum(1).mean().item()
    torch.testing.assert_close(
        LOSSES["tad"](k=3, beta=own)(student, teacher, labels),
        LOSSES["kd"](temperature=1.0)(student, teacher, labels),
    )


def test_ltkd_parts_add_up_to_kl_for_one_group():
    """With one group there is nothing between groups, and inside it everything."""
    student, teacher, labels = batch()
    value = LOSSES["ltkd"](groups=(1,) * 7, temperature=2.0)(student, teacher, labels)
    torch.testing.assert_close(value, LOSSES["kd"](temperature=2.0)(student, teacher, labels))


def test_ltkd_rebalances_the_batch_mean():
    """A student with the rebalanced masses costs nothing between groups."""
    _, teacher, labels = batch()
    groups = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    p = teacher.softmax(1)
    masses = torch.stack([p[:, groups == g].sum(1) for g in range(3)], dim=1)
    scaled = masses / masses.mean(0)
    balanced = scaled / scaled.sum(1, keepdim=True)
    student = (p * (balanced / masses)[:, groups]).log()
    loss = LOSSES["ltkd"](beta=0.0, temperature=1.0, groups=tuple(groups.tolist()))
    assert abs(loss(student, teacher, labels).item()) < 1e-12
    assert loss(teacher, teacher, labels).item() > 1e-3


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ([5, 50, 500, 1, 20, 7], (2, 0, 0, 2, 1, 1)),
        ([1, 1, 1], (0, 1, 2)),
        ([3, 9], (2, 0)),
    ],
)
def test_groups_are_thirds_by_training_count(counts, groups):
    assert groups_by_count(torch.tensor(counts)) == groups


def test_given_groups_are_kept_and_must_fit():
    student, teacher, labels = batch()
    given = LOSSES["ltkd"](groups=(0, 0, 0, 1, 1, 2, 2)).prepared(torch.arange(7))
    assert given.groups == (0, 0, 0, 1, 1, 2, 2)
    with pytest.raises(ConfigError, match="groups names 3 classes of 7"):
        LOSSES["ltkd"](groups=(0, 1, 2))(student, teacher, labels)
