from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_builder.format.errors import ConfigError
from trainer.objective.expression import Call, WeightedCall, parse_call, parse_sum


def test_a_sum_of_weighted_calls():
    assert parse_sum("ce*1.0 + dkd(alpha=1,beta=8.5,temperature=4)*2") == [
        WeightedCall(Call("ce"), 1.0),
        WeightedCall(Call("dkd", {"alpha": 1, "beta": 8.5, "temperature": 4}, has_brackets=True), 2.0),
    ]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("kd", [None]),
        ("0.5*ce + kd", [0.5, None]),
        ("ce*0.5+-2*kd", [0.5, -2.0]),
        ("kd()+2*ce", [None, 2.0]),
        ("kd() +1e-3*ce", [None, 1e-3]),
        ("ce*.5+kd*2.", [0.5, 2.0]),
    ],
)
def test_weights_stand_on_either_side(text, weights):
    assert [term.weight for term in parse_sum(text)] == weights


def test_values():
    call = parse_call(
        "x(a=1, b=-2.5, c=true, d='two words', e=(4, 3), f=[], g=bilinear, h=kd(temperature=2))"
    )
    assert call.arguments == {
        "a": 1,
        "b": -2.5,
        "c": True,
        "d": "two words",
        "e": [4, 3],
        "f": [],
        "g": "bilinear",
        "h": {"name": "kd", "configuration": {"temperature": 2}},
    }


def test_a_module_path_is_a_name():
    assert parse_call("my_models.small:factory(width=8)").name == "my_models.small:factory"


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("", 1),
        ("kd(", 4),
        ("kd*", 4),
        ("kd)", 3),
        ("2 kd", 3),
        ("kd(a=1 b=2)", 8),
        ("kd(a=)", 6),
        ("kd $", 4),
        ("kd(a=1,a=2)", 8),
        ("__import__('os')", 12),
    ],
)
def test_an_error_points_at_the_character(text, character):
    with pytest.raises(ConfigError) as error:
        parse_sum(text)
    assert f"character {character}:" in str(error.value)
    pointer = str(error.value).splitlines()[-1]
    assert pointer == " " * (character + 1) + "^"


def said_of(text):
    """What is said of a text, nothing where it parses to terms that it names."""
    try:
        return "" if all(term.call.name in text for term in parse_sum(text)) else "not what was written"
    except ConfigError as error:
        return str(error)


@given(st.text(alphabet="ab1.*+-()=,[]'\" ", max_size=20))
def test_any_text_parses_or_is_refused_with_a_sentence(text):
    said = said_of(text)
    assert not said or said.startswith("cannot read this at character ")
