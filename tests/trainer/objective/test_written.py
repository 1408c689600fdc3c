from __future__ import annotations

import json

import pytest

from cache_builder.format.errors import ConfigError
from trainer.losses import LOSSES, RECIPES
from trainer.objective.terms import Term
from trainer.objective.written import benchmark_for, parse_objective, published


@pytest.mark.parametrize("benchmark", ["imagenet", "cifar100"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_name_alone_is_its_published_objective_and_can_be_written_out(name, benchmark):
    terms = parse_objective(name, benchmark)
    recipe = published(name, benchmark)
    assert recipe == RECIPES[name][benchmark]
    assert bool(recipe.source) == (name != "ce")
    text = " + ".join(map(str, terms))
    # A space in front keeps "ce*1" from being taken for a name.
    assert parse_objective(f"0*ce + {text}", benchmark)[1:] == terms
    as_json = json.dumps([term.model_dump(mode="json") for term in terms])
    assert parse_objective(as_json, benchmark) == terms


@pytest.mark.parametrize("name", [name for name in RECIPES if name in LOSSES])
def test_a_methods_objective_contains_its_loss(name):
    for benchmark in ("imagenet", "cifar100"):
        assert name in [term.name for term in parse_objective(name, benchmark)]


def test_heads_that_recipes_need_come_with_them():
    for name, recipe in RECIPES.items():
        for benchmark, objective in recipe.items():
            heads = {term.head for term in parse_objective(name, benchmark)}
            assert ("aux" in heads) == (objective.aux_head is not None), name


def test_brackets_are_one_term():
    assert [term.name for term in parse_objective("kd", "cifar100")] == ["ce", "kd"]
    assert parse_objective("kd()", "cifar100") == (Term(name="kd"),)
    assert published("kd()", "cifar100") is None


def test_json_and_toml_text_and_files_and_expression_agree(tmp_path):
    terms = parse_objective("ce*0.5 + swap(loss=dkd(beta=2),warmup_epochs=20)*1", "imagenet")
    as_json = json.dumps([term.model_dump(mode="json") for term in terms])
    as_toml = (
        '[[term]]\nname = "ce"\nweight = 0.5\n\n[[term]]\nname = "swap"\nwarmup_epochs = 20\n'
        '[term.configuration.loss]\nname = "dkd"\nconfiguration = {beta = 2}\n'
    )
    for text, suffix in ((as_json, "json"), (as_toml, "toml")):
        path = tmp_path / f"objective.{suffix}"
        path.write_text(text)
        assert parse_objective(text, "imagenet") == parse_objective(str(path), "imagenet") == terms


def test_small_images_follow_cifar():
    assert [benchmark_for(size) for size in (8, 32, 64, 160, 224)] == ["cifar100"] * 3 + ["imagenet"] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kdd", "unknown loss 'kdd': did you mean 'kd'"),
        ("dohh", "unknown loss 'dohh': did you mean .*'dho'"),
        ("[]", "no terms"),
        ('[{"nam": "kd"}]', "not a list of terms"),
        ("[[term]]\nnam = 'kd'", r"not a list of \[\[term\]\] tables"),
        ("[[term]]\nname = ", r"not a list of \[\[term\]\] tables"),
        ("missing.json", "cannot read the objective missing.json"),
        ("missing.toml", "cannot read the objective missing.toml"),
    ],
)
def test_wrong_objectives_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_objective(text, "imagenet")


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("ce + ", "character 5", 4),
        ("ce*1 + kdd*1", "unknown loss 'kdd': did you mean 'kd'", 7),
        ("ce*1 + kd(tmperature=1)", "unknown parameter 'tmperature': did you mean 'temperature'", 10),
        ("kd(temperature='hot')", "temperature: .*'hot'", 3),
        ("dkd(beta=1, temperature=0)", "temperature must be positive", 12),
        ("kd(warmup_epochs=-1)", "warmup_epochs: Input should be greater", 3),
        ("kd(head=side)", "head: Input should be 'main' or 'aux'", 3),
        ("ce(samples=some)", "samples: Input should be 'all' or 'labelled'", 3),
        ("ce + swap(loss=kdd())", "unknown loss 'kdd'", 5),
        ("ce + swap(loss=kd(), head=side)", "head: Input should be", 21),
    ],
)
def test_a_wrong_expression_points_at_the_character(text, message, column):
    with pytest.raises(ConfigError, match=message) as error:
        parse_objective(text, "imagenet")
    *_, shown, pointer = str(error.value).split("\n")
    assert shown == f"  {text.strip()}"
    assert pointer.index("^") - 2 == column
