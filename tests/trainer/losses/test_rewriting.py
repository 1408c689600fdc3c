from __future__ import annotations

import torch

from tests.trainer.losses.cases import any_batch, batch
from trainer.losses import LOSSES


def kd(temperature=4.0):
    return {"name": "kd", "configuration": {"temperature": temperature}}


def test_standardized_forgets_scale_and_level():
    student, teacher, labels = batch()
    loss = LOSSES["standardized"](loss=kd(2.0))
    torch.testing.assert_close(
        loss(3 * student + 5, 0.1 * teacher - 2, labels), loss(student, teacher, labels), rtol=1e-5, atol=0
    )


def test_swap_and_sort_leave_a_right_teacher_alone():
    student, teacher, _ = batch()
    right = teacher.argmax(1)
    plain = LOSSES["kd"]()(student, teacher, right)
    for name in ("swap", "sort"):
        assert LOSSES[name](loss=kd())(student, teacher, right) == plain


def test_swap_exchanges_and_sort_deals_anew():
    teacher = torch.tensor([[0.0, 4.0, 3.0, 1.0]], dtype=torch.float64)
    student, label = torch.randn(1, 4, dtype=torch.float64), torch.tensor([3])
    swapped = torch.tensor([[0.0, 1.0, 3.0, 4.0]], dtype=torch.float64)
    dealt = torch.tensor([[0.0, 3.0, 1.0, 4.0]], dtype=torch.float64)
    plain = LOSSES["kd"]()
    assert LOSSES["swap"](loss=kd())(student, teacher, label) == plain(student, swapped, label)
    assert LOSSES["sort"](loss=kd())(student, teacher, label) == plain(student, dealt, label)


def test_wrappers_nest():
    student, teacher, labels = batch()
    inner = {"name": "standardized", "configuration": {"loss": kd(2.0)}}
    nested = LOSSES["sort"](loss={"name": "swap", "configuration": {"loss": inner}})
    assert nested.needs_labels
    # Once swapped, the teacher is right, and sorting it again changes nothing.
    torch.testing.assert_close(
        nested(student, teacher, labels),
        LOSSES["standardized"](loss=kd(2.0))(student, dealt_and_swapped(teacher, labels), labels),
    )


def dealt_and_swapped(teacher, labels):
    values = teacher.sort(dim=1, descending=True).values
    order = teacher.scatter(1, labels[:, None], torch.inf).argsort(dim=1, descending=True)
    return torch.empty_like(teacher).scatter(1, order, values)


def test_wrappers_of_two_views_rewrite_both():
    student, teacher, labels = any_batch(2, 6, 7, 3.0, 0)
    swap = LOSSES["swap"](loss={"name": "crld", "configuration": {"temperature": 4.0}})
    assert swap.views == 2
    rewritten = torch.stack([swapped(view, labels) for view in teacher])
    assert swap(student, teacher, labels) == LOSSES["crld"](temperature=4.0)(student, rewritten, labels)


def swapped(teacher, labels):
    largest, place = teacher.max(1, keepdim=True)
    own = teacher.gather(1, labels[:, None])
    return teacher.scatter(1, place, own).scatter(1, labels[:, None], largest)


def test_a_wrapper_takes_a_name_for_a_loss_with_defaults():
    student, teacher, labels = batch()
    assert LOSSES["swap"](loss="dkd")(student, teacher, labels) == LOSSES["swap"](
        loss={"name": "dkd", "configuration": {}}
    )(student, teacher, labels)


def test_a_wrapper_of_labels_only_needs_no_teacher():
    student, _, labels = batch()
    loss = LOSSES["standardized"](loss="ce")
    assert not loss.needs_teacher
    assert torch.isfinite(loss(student, None, labels))


def test_refined_self_raises_the_label_by_the_students_largest():
    student = torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.float64, requires_grad=True)
    value = LOSSES["refined_self"](temperature=1.0)(student, None, torch.tensor([0]))
    target = torch.tensor([[4.0, 3.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(value, LOSSES["kd"](temperature=1.0)(student, target, None))
