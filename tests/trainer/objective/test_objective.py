from __future__ import annotations

import math

import pytest
import torch

from cache_builder.format.errors import ConfigError, DataError
from trainer.losses import LOSSES, StatefulLoss
from trainer.objective.objective import Objective, combined_teachers
from trainer.objective.terms import Term, with_label_smoothing
from trainer.objective.written import parse_objective


def batch():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 5, generator=generator)
    return student, teacher, torch.tensor([0, 1, 2, 3])


def objective(text):
    return Objective(parse_objective(text, "imagenet"))


def test_the_total_is_the_weighted_sum():
    student, teacher, labels = batch()
    total, values = objective("ce*0.25 + kd(temperature=2)*3")(student, teacher, labels, epoch=0)
    ce, kd = LOSSES["ce"]()(student, None, labels), LOSSES["kd"](temperature=2)(student, teacher, None)
    assert values == {"ce": ce, "kd": kd}
    torch.testing.assert_close(total, 0.25 * ce + 3 * kd)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.25), (1, 0.5), (3, 1.0), (10, 1.0)])
def test_warm_up_is_linear_from_the_first_epoch(epoch, factor):
    student, teacher, labels = batch()
    total, values = objective("kd(warmup_epochs=4)*2")(student, teacher, labels, epoch)
    assert total.item() == pytest.approx(2 * factor * values["kd"].item())


def test_the_same_loss_may_occur_twice():
    student, teacher, labels = batch()
    _, values = objective("kd(temperature=1) + kd(temperature=4)")(student, teacher, labels, 0)
    assert list(values) == ["kd", "kd#2"]
    assert values["kd"] != values["kd#2"]


def test_needs_are_those_of_the_terms():
    assert not objective("ce").needs_teacher
    assert not objective("kd*1").needs_labels
    both = objective("ce + kd*1")
    assert both.needs_teacher
    assert both.needs_labels
    assert (both.views, both.needs_aux_head, both.held_out_losses) == (1, False, [])
    assert objective("mlkd*1").views == 2
    assert objective("standardized(loss=mlkd())*1").views == 2
    assert objective("kd(head=aux)*1").needs_aux_head
    assert not objective("ce(samples=labelled)*1").needs_labels
    assert objective("swap(loss=kd())*1").needs_labels
    assert [loss.name for loss in objective("tgeo*1 + ce").held_out_losses] == ["tgeo"]


def test_a_loss_of_one_view_counts_both():
    student, teacher, labels = batch()
    views = torch.stack([student, student.flip(0)]), torch.stack([teacher, teacher * 2])
    total, values = objective("ce*0.5 + kd()*2 + crld(temperature=4)*1")(*views, labels, 0)
    ce, kd = LOSSES["ce"](), LOSSES["kd"]()
    assert values["ce"] == ce(student, None, labels) + ce(student.flip(0), None, labels)
    assert values["kd"] == kd(student, teacher, None) + kd(student.flip(0), 2 * teacher, None)
    crld = LOSSES["crld"](temperature=4.0)(*views, None)
    torch.testing.assert_close(total, 0.5 * values["ce"] + 2 * values["kd"] + crld)


def test_several_teachers_are_the_mean_of_their_softmaxes():
    student, teacher, labels = batch()
    teachers = torch.stack([teacher, -teacher, 3 * teacher.flip(1)])
    combined = combined_teachers(teachers)
    torch.testing.assert_close(combined.softmax(-1), teachers.softmax(-1).mean(0))
    _, values = objective("kd(temperature=1)*1 + ensemble()*1")(student, teachers, labels, 0)
    torch.testing.assert_close(values["kd"], LOSSES["kd"](temperature=1.0)(student, combined, None))
    torch.testing.assert_close(values["ensemble"], LOSSES["forward_ce"]()(student, combined, None))


def test_several_teachers_of_two_views():
    student, _, labels = batch()
    views, teachers = torch.stack([student, -student]), torch.randn(3, 2, 4, 5)
    _, values = objective("mlkd()*1 + ensemble()*1")(views, teachers, labels, 0)
    torch.testing.assert_close(values["mlkd"], LOSSES["mlkd"]()(views, combined_teachers(teachers), None))
    by_view = [LOSSES["ensemble"]()(views[v], teachers[:, v], None) for v in (0, 1)]
    torch.testing.assert_close(values["ensemble"], sum(by_view))


def test_a_term_may_look_at_the_auxiliary_head():
    student, teacher, labels = batch()
    aux = student.flip(0)
    both = objective("ce*1 + kd(head=aux)*1")
    _, values = both(student, teacher, labels, 0, aux=aux)
    assert values["ce"] == LOSSES["ce"]()(student, None, labels)
    assert values["kd"] == LOSSES["kd"]()(aux, teacher, None)
    with pytest.raises(ConfigError, match=r"'kd' looks at an auxiliary head.*--aux-head"):
        both(student, teacher, labels, 0)


def test_a_term_may_look_at_labelled_samples_only():
    student, teacher, labels = batch()
    partly = torch.tensor([0, -1, 2, -1])
    some = objective("ce(samples=labelled)*1 + kd()*1")
    _, values = some(student, teacher, partly, 0)
    assert values["ce"] == LOSSES["ce"]()(student[[0, 2]], None, labels[[0, 2]])
    assert values["kd"] == LOSSES["kd"]()(student, teacher, None)
    with pytest.raises(DataError, match="'ce': labels must lie in 0 to 4"):
        objective("ce*1")(student, teacher, partly, 0)
    with pytest.raises(ConfigError, match="'ce' looks at labelled samples, but there are no labels"):
        some(student, teacher, None, 0)


def test_a_batch_without_labels_costs_nothing_and_keeps_its_graph():
    student, teacher, _ = batch()
    student.requires_grad_()
    total, values = objective("ce(samples=labelled)*1")(student, teacher, torch.full((4,), -1), 0)
    total.backward()
    assert values["ce"] == 0
    assert torch.equal(student.grad, torch.zeros(4, 5))


def test_class_counts_reach_the_losses():
    student, teacher, labels = batch()
    terms = parse_objective("ltkd*1", "imagenet")
    counted = Objective(terms, torch.tensor([9, 8, 2, 1, 0]))
    _, values = counted(student, teacher, labels, 0)
    assert values["ltkd"] == LOSSES["ltkd"](groups=(0, 0, 1, 2, 2))(student, teacher, None)
    with pytest.raises(ConfigError, match="'ltkd' does not know the class groups"):
        Objective(terms)(student, teacher, labels, 0)


def test_state_moves_only_when_a_step_is_done():
    student, teacher, labels = batch()
    moving = objective("taid(start=0.2)*1 + standardized(loss=taid(start=0.2))*1 + ce")
    for step in range(3):
        _, values = moving(student, teacher, labels, 0)
        moving.note(values)
        again, _ = moving(student, teacher, labels, 0)
        moving.note(moving(student, teacher, labels, 0)[1])
        assert again == moving(student, teacher, labels, 0)[0]
        moving.advance((step + 1) / 10)
    ratios = [loss.state_dict()["ratio"] for loss in (moving.losses[0], moving.losses[1].inner)]
    assert all(float(ratio) == pytest.approx(0.2 + 0.8 * 0.3) for ratio in ratios)


def test_the_mean_over_a_step_is_told_and_may_be_taken_over_processes():
    told = []

    class Spy(StatefulLoss):
        name, paper = "spy", "none"

        def advance(self, value, progress):
            told.append((value.item(), progress))

    spied = objective("taid*1")
    spied.losses = [Spy.__new__(Spy)]
    torch.nn.Module.__init__(spied.losses[0])
    for value in (1.0, 3.0):
        spied.note({"taid": torch.tensor(value)})
    spied.advance(0.5, mean=lambda value: value + 10)
    spied.advance(0.6)
    assert told == [(12.0, 0.5)]


def test_state_travels_through_a_state_dict():
    student, teacher, labels = batch()
    text = "taid*1 + ctkd(loss=dkd())*1 + adakd*1"
    first, second = objective(text), objective(text)
    for step in range(5):
        first.note(first(student, teacher, labels, step)[1])
        first.advance(step / 5)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
    assert first(student, teacher, labels, 5)[0] != second(student, teacher, labels, 5)[0]
    second.load_state_dict(first.state_dict())
    assert first(student, teacher, labels, 5)[0] == second(student, teacher, labels, 5)[0]


def test_joint_parameters_are_those_the_students_optimiser_trains():
    prepared = Objective(parse_objective("ctkd*1 + tgeo*1", "imagenet"), torch.ones(5, dtype=torch.int64))
    joint = list(prepared.joint_parameters())
    assert len(joint) == 1
    assert joint[0].item() == 1.0  # theta; tgeo's network has its own update
    assert len(list(prepared.parameters())) > 1


def test_label_smoothing_reaches_cross_entropy_that_has_none_of_its_own():
    terms = parse_objective("ce + kd*1", "imagenet")
    assert with_label_smoothing(terms, 0.1)[0].configuration == {"label_smoothing": 0.1}
    assert with_label_smoothing(terms, 0.1)[1] == terms[1]
    own = parse_objective("ce(label_smoothing=0.2)*1", "imagenet")
    assert with_label_smoothing(own, 0.1) == own
    assert with_label_smoothing(terms, 0.0) == terms


def test_a_term_is_written_as_it_is_read():
    term = Term(
        name="standardized",
        configuration={"loss": {"name": "soft_label", "configuration": {"kind": "hard", "k": 3}}},
        weight=1 / 3,
        warmup_epochs=2,
        head="aux",
    )
    assert parse_objective(f"{term}", "imagenet") == (
        term.model_copy(update={"weight": float(f"{1 / 3:.15g}")}),
    )
    assert math.isclose(parse_objective(str(term), "imagenet")[0].weight, 1 / 3, rel_tol=1e-14)
