from __future__ import annotations

import pytest
import torch

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES


def test_equal_logits_cost_next_to_nothing():
    _, teacher, labels = batch()
    for name in ("dist", "r2kd", "cmkd"):
        assert LOSSES[name]()(teacher, teacher, labels).item() == pytest.approx(0, abs=1e-4), name


def test_dist_asks_for_relations_only():
    """A mixture with the uniform distribution keeps every correlation over classes."""
    _, teacher, labels = batch()
    mixed = (0.3 * teacher.softmax(1) + 0.7 / 7).log()
    assert LOSSES["dist"](gamma=0.0)(mixed, teacher, labels).item() == pytest.approx(0, abs=1e-6)
    assert LOSSES["kd"](temperature=1.0)(mixed, teacher, labels).item() > 0.05


def test_a_single_sample_has_no_relation_to_others():
    student, teacher, labels = batch(samples=1)
    inter = LOSSES["dist"](gamma=0.0)(student, teacher, labels)
    torch.testing.assert_close(LOSSES["dist"](gamma=3.0)(student, teacher, labels), inter + 3.0)


def test_cmkd_leans_on_ranks_where_the_teacher_is_unsure():
    labels = torch.zeros(1, dtype=torch.int64)
    order = torch.arange(7.0, dtype=torch.float64)[None]
    reversed_order = order.flip(1)
    unsure, sure = 1e-3 * order, 100 * order
    assert LOSSES["cmkd"](rank_temperature=1e-4)(
        1e-3 * reversed_order, unsure, labels
    ).item() == pytest.approx(2, abs=0.01)
    # Sure of its top class: only the probabilities count, and those of the student are all elsewhere.
    off = LOSSES["cmkd"]()(100 * reversed_order, sure, labels).item()
    assert off == pytest.approx(1 + 1 / 6, abs=1e-3)


def test_cmkd_ranks_the_teachers_largest_only():
    student, teacher, labels = batch(classes=12)
    moved = student.detach().clone()
    tail = teacher.topk(4, dim=1, largest=False).indices
    # Flip the student's order in the teacher's tail; its probabilities stay, for each tail swaps its own.
    moved.scatter_(1, tail, moved.gather(1, tail).flip(1))
    uniform = LOSSES["cmkd"](k=8, temperature=1e6)
    assert uniform(moved, teacher, labels).item() == pytest.approx(
        uniform(student, teacher, labels).item(), rel=1e-3
    )
