from __future__ import annotations

import pytest
import torch

from tests.trainer.losses.cases import batch
from trainer.losses import LOSSES


def trained(steps=1, classes=7):
    """A loss whose network has moved."""
    loss = LOSSES["tgeo"]().prepared(torch.ones(classes, dtype=torch.int64))
    student, teacher, labels = batch(classes=classes)
    for _ in range(steps):
        ratios = loss.ratios(student.detach().float(), teacher.float(), labels)
        loss.learn_from(torch.autograd.grad(ratios.sum(), list(loss.parameters())))
    return loss


def test_an_untrained_network_weighs_teacher_and_label_alike():
    student, teacher, labels = batch()
    value = LOSSES["tgeo"](temperature=2.0)(student, teacher, labels)
    kd = LOSSES["kd"](temperature=2.0)(student, teacher, labels)
    torch.testing.assert_close(value, 0.5 * kd + 0.5 * LOSSES["ce"]()(student, None, labels))


def test_the_network_learns_from_gradients_it_is_given():
    student, teacher, labels = batch()
    loss = trained(steps=30)
    assert loss.ratios(student, teacher, labels).max().item() < 0.5


def test_ratios_are_constants_for_the_student_and_carry_gradient_to_the_network():
    student, teacher, labels = batch()
    loss = trained(steps=3)
    value = loss(student, teacher, labels)
    gradients = torch.autograd.grad(value, [student, *loss.parameters()])
    ratios = loss.ratios(student.detach(), teacher, labels).detach()
    kd = 16 * torch.nn.functional.kl_div(
        (student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="none"
    ).sum(1)
    hard = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    (expected,) = torch.autograd.grad((ratios * kd + (1 - ratios) * hard).mean(), student)
    torch.testing.assert_close(gradients[0], expected)
    assert any(gradient.abs().max() > 0 for gradient in gradients[1:])


def test_class_means_follow_the_teacher():
    loss = LOSSES["tgeo"]().prepared(torch.ones(3, dtype=torch.int64))
    teacher = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]]).log()
    loss.observe(teacher, torch.tensor([0, 0, 2]))
    means = loss.get_buffer("class_means")
    torch.testing.assert_close(means[0], 0.9 / 3 + 0.1 * torch.tensor([0.6, 0.3, 0.1]))
    torch.testing.assert_close(means[1], torch.full((3,), 1 / 3))
    torch.testing.assert_close(means[2], 0.9 / 3 + 0.1 * torch.tensor([0.1, 0.1, 0.8]))


def test_network_means_and_optimiser_travel_through_a_state_dict(tmp_path):
    first = trained(steps=4)
    first.observe(*batch()[1:])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = LOSSES["tgeo"]().prepared(torch.ones(7, dtype=torch.int64))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    student, teacher, labels = batch()
    for loss in (first, second):
        ratios = loss.ratios(student.detach().float(), teacher.float(), labels)
        loss.learn_from(torch.autograd.grad(ratios.sum(), list(loss.parameters())))
    assert torch.equal(first(student, teacher, labels), second(student, teacher, labels))
    # Without the optimiser's moments the next step would differ.
    third = LOSSES["tgeo"]().prepared(torch.ones(7, dtype=torch.int64))
    assert not torch.equal(third(student, teacher, labels), first(student, teacher, labels))


def test_making_the_network_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    LOSSES["tgeo"]().prepared(torch.ones(50, dtype=torch.int64))
    assert torch.equal(torch.randn(3), expected)


def test_the_students_optimiser_does_not_train_the_network():
    assert list(trained().joint_parameters()) == []
    assert pytest.approx(len(list(trained().parameters()))) == 4
