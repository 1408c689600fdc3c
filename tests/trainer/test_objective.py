from __future__ import annotations

import json

import pytest
import torch

from cache_builder.format.errors import ConfigError
from trainer.losses import LOSSES
from trainer.losses.recipes import RECIPES
from trainer.objective import (
    Objective,
    Term,
    benchmark_for,
    parse_objective,
    published_source,
    with_label_smoothing,
)


def batch():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 5, generator=generator)
    return student, teacher, torch.tensor([0, 1, 2, 3])


def test_the_total_is_the_weighted_sum():
    student, teacher, labels = batch()
    objective = Objective(parse_objective("ce*0.25 + kd(temperature=2)*3", "imagenet"))
    total, values = objective(student, teacher, labels, epoch=0)
    ce, kd = LOSSES["ce"]()(student, None, labels), LOSSES["kd"](temperature=2)(student, teacher, None)
    assert values == {"ce": ce, "kd": kd}
    torch.testing.assert_close(total, 0.25 * ce + 3 * kd)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.25), (1, 0.5), (3, 1.0), (10, 1.0)])
def test_warm_up_is_linear_from_the_first_epoch(epoch, factor):
    student, teacher, labels = batch()
    objective = Objective(parse_objective("kd(warmup_epochs=4)*2", "imagenet"))
    total, values = objective(student, teacher, labels, epoch)
    assert total.item() == pytest.approx(2 * factor * values["kd"].item())


def test_the_same_loss_may_occur_twice():
    student, teacher, labels = batch()
    objective = Objective(parse_objective("kd(temperature=1) + kd(temperature=4)", "imagenet"))
    _, values = objective(student, teacher, labels, 0)
    assert list(values) == ["kd", "kd#2"]
    assert values["kd"] != values["kd#2"]


def test_needs_are_those_of_the_terms():
    assert not Objective(parse_objective("ce", "imagenet")).needs_teacher
    assert not Objective(parse_objective("kd*1", "imagenet")).needs_labels
    both = Objective(parse_objective("ce + kd*1", "imagenet"))
    assert both.needs_teacher
    assert both.needs_labels


def test_every_loss_has_a_published_objective_with_a_source():
    for name in LOSSES:
        for benchmark in ("imagenet", "cifar100"):
            assert parse_objective(name, benchmark)
            assert published_source(name, benchmark) == RECIPES[name][benchmark].source
            assert bool(published_source(name, benchmark)) == (name != "ce")


def test_a_name_alone_is_published_and_brackets_are_one_term():
    assert [term.name for term in parse_objective("kd", "cifar100")] == ["ce", "kd"]
    assert parse_objective("kd()", "cifar100") == (Term(name="kd"),)
    assert published_source("kd()", "cifar100") is None


def test_json_text_json_file_and_expression_agree(tmp_path):
    terms = parse_objective("ce*0.5 + dkd(beta=2,warmup_epochs=20)*1", "imagenet")
    text = json.dumps([term.model_dump(mode="json") for term in terms])
    path = tmp_path / "objective.json"
    path.write_text(text)
    assert parse_objective(text, "imagenet") == parse_objective(str(path), "imagenet") == terms
    assert parse_objective(" + ".join(map(str, terms)), "imagenet") == terms


def test_label_smoothing_reaches_cross_entropy_that_has_none_of_its_own():
    terms = parse_objective("ce + kd*1", "imagenet")
    assert with_label_smoothing(terms, 0.1)[0].configuration == {"label_smoothing": 0.1}
    assert with_label_smoothing(terms, 0.1)[1] == terms[1]
    own = parse_objective("ce(label_smoothing=0.2)*1", "imagenet")
    assert with_label_smoothing(own, 0.1) == own
    assert with_label_smoothing(terms, 0.0) == terms


def test_small_images_follow_cifar():
    assert [benchmark_for(size) for size in (8, 32, 64, 160, 224)] == ["cifar100"] * 3 + ["imagenet"] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kdd", "unknown loss 'kdd': did you mean 'kd' or 'dkd'"),
        ("kd(tmperature=1)", "unknown parameter 'tmperature': did you mean 'temperature'"),
        ("kd(temperature='hot')", "temperature: .*'hot'"),
        ("kd(temperature=0)", "temperature must be positive"),
        ("kd(warmup_epochs=-1)", "warmup_epochs"),
        ("ce + ", "character 5"),
        ("[]", "no terms"),
        ('[{"nam": "kd"}]', "not a list of terms"),
        ("missing.json", "cannot read the objective missing.json"),
    ],
)
def test_wrong_objectives_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_objective(text, "imagenet")
