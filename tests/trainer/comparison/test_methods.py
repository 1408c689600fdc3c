"""What --losses says: items between commas, each an objective."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_builder.format import ConfigError
from trainer.comparison.methods import parse_methods, split_items
from trainer.objective.published import RECIPES

ITEMS = st.recursive(
    st.sampled_from(["kd", "ce*0.1", "'a,b'", '"("', "x = 1 + y", "it(t=',')"]),
    lambda inner: st.builds(
        lambda name, parts, pair: f"{name}{pair[0]}{', '.join(parts)}{pair[1]}",
        st.sampled_from(["kd", "dkd", ""]),
        st.lists(inner, min_size=1, max_size=3),
        st.sampled_from(["()", "[]", "{}"]),
    ),
    max_leaves=8,
)


@given(st.lists(ITEMS, min_size=1, max_size=5), st.sampled_from([",", " , ", ",\n"]))
def test_only_commas_outside_of_brackets_and_quotes_split(items, between):
    text = between.join(items)
    found = split_items(text)
    assert [item.text for item in found] == items
    for item in found:
        assert text[item.start : item.start + len(item.text)] == item.text


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [
        ("", 0, "a method is missing"),
        ("kd,,dkd", 3, "a method is missing"),
        ("kd,dkd,", 7, "a method is missing"),
        ("kd,dkd(beta=2", 6, "this bracket is never closed"),
        ("kd), dkd", 2, "this bracket closes none"),
        ("kd(t=[1)],dkd", 7, "this bracket closes none"),
        ('kd(kind="a),dkd', 8, "this quote is never closed"),
    ],
)
def test_what_is_not_a_list_is_pointed_at(text, column, what):
    with pytest.raises(ConfigError, match=what) as caught:
        split_items(text)
    assert f"\n  {text}\n  {' ' * column}^\n" in str(caught.value)


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ("dkdd", "unknown loss 'dkdd': did you mean 'dkd'"),
        ("ce + kd(temperatur=2)", "unknown parameter 'temperatur': did you mean 'temperature'"),
        ("kd(temperature=0)", "must be positive"),
        ("ce*", "expected a number after"),
        ("nowhere.json", "cannot read the objective nowhere.json"),
    ],
)
def test_a_bad_item_is_pointed_at(item, what):
    text = f"kd, {item}, pld"
    with pytest.raises(ConfigError) as caught:
        parse_methods(text, "cifar100")
    message = str(caught.value)
    assert message.startswith("--losses: item 2: ")
    assert what in message
    assert f"\n  {text}\n      {'^' * len(item)}\n" in message


def test_hard_labels_come_first_and_everything_once():
    methods = parse_methods("kd, dkd ,kd,ce,ce*0.1 + kd(temperature=2)*0.9", "cifar100")
    assert [method.name for method in methods] == ["ce", "kd", "dkd", "ce*0.1 + kd(temperature=2)*0.9"]
    assert [method.label for method in methods][:2] == ["hard labels", "kd"]
    assert methods[1].minimises == "ce*0.1 + kd(temperature=4)*0.9"
    assert "1503.02531" in methods[1].source
    assert methods[3].source is None


def test_a_name_means_what_was_published_for_the_benchmark():
    assert parse_methods("kd", "imagenet")[1].minimises == "ce*0.5 + kd(temperature=1)*0.5"


def test_all_is_every_published_method_beside_what_else_is_asked_for():
    methods = parse_methods("kd(temperature=3),all", "cifar100")
    assert {method.name for method in methods} == {*RECIPES, "kd(temperature=3)"}


def test_an_objective_may_be_json(tmp_path):
    terms = [{"name": "kd", "configuration": {"temperature": 2}, "weight": 0.5}, {"name": "ce"}]
    (tmp_path / "mine.json").write_text(json.dumps(terms))
    methods = parse_methods(f"{json.dumps(terms)},{tmp_path / 'mine.json'}", "cifar100")
    assert methods[1].minimises == methods[2].minimises == "kd(temperature=2)*0.5 + ce*1"


def test_labels_and_folders_are_short_and_distinct():
    long = "ce*0.1 + dkd(alpha=1, beta=8, temperature=4, warmup_epochs=20)*0."
    methods = parse_methods(f"{long}8,{long}9,kd(),kd", "cifar100")
    labels = [method.label for method in methods]
    assert labels[1] == "ce*0.1 + dkd(alpha=1, beta=8, tempe…"
    assert labels[2] == labels[1] + " (2)"
    slugs = [method.slug for method in methods]
    assert slugs[3:] == ["kd", "kd-2"]
    assert len(set(slugs)) == len(slugs)
    assert all(len(slug) < 70 and set(slug).isdisjoint("/\\ *()") for slug in slugs)
