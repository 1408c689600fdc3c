"""A loss of the user's own package, named on the command line."""

from __future__ import annotations

import json
import sys

import pytest

from cache_builder.format import ConfigError
from tests.trainer.runs import config, write_digits_cache
from trainer.losses import make_loss
from trainer.objective.losses_explained import explain_loss
from trainer.objective.written import parse_objective
from trainer.run.loop import train

MODULE = '''
from dataclasses import dataclass
from trainer.losses import Loss

@dataclass(frozen=True)
class Gap(Loss):
    """``power mean_c |s_c - t_c|``."""

    name = "gap"
    paper = "nobody's"

    power: float = 1.0
    """Of everything."""

    def formula(self, student, teacher, labels):
        return self.power * (student - teacher).abs().mean(-1)

class Plain(Loss):
    name = "plain"

@dataclass(frozen=True)
class Nameless(Loss):
    pass

NUMBER = 3
'''


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch):
    """``my_losses.py`` in the working directory."""
    (tmp_path / "my_losses.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("my_losses:Gap", ["my_losses:Gap*1"]),
        ("my_losses:Gap(power=2)*0.5 + ce", ["my_losses:Gap(power=2)*0.5", "ce*1"]),
        ('[{"name": "my_losses:Gap", "weight": 3}]', ["my_losses:Gap*3"]),
        (
            "standardized(loss=my_losses:Gap(power=2))*1",
            ["standardized(loss=my_losses:Gap(power=2))*1"],
        ),
    ],
)
def test_an_objective_may_name_it(text, written):
    terms = parse_objective(text, "imagenet")
    assert [str(term) for term in terms] == written
    assert parse_objective(" + ".join(written), "imagenet") == terms


def test_it_trains(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    train(config(tmp_path / "a", cache, loss="my_losses:Gap(power=2)*0.5 + my_losses:Gap + ce", epochs=1))
    (row,) = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert row["train_Gap"] == pytest.approx(2 * row["train_Gap#2"])
    train(
        config(tmp_path / "a", cache, loss="my_losses:Gap(power=2)*0.5 + my_losses:Gap + ce", epochs=1),
        resume=True,
    )


def test_it_is_explained():
    explained = explain_loss("my_losses:Gap")
    assert "power mean_c" in explained
    assert "  power = 1: Of everything." in explained
    assert "my_losses:Gap*1.0" in explained


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_losses:Nothing", "my_losses has no attribute 'Nothing'"),
        ("my_losses:NUMBER", "is an object of type int, expected a subclass of trainer.losses.Loss"),
        ("my_losses:Plain", "is a loss, but no dataclass"),
        ("my_losses:Nameless", "has no name: write name = 'my_loss'"),
        ("my_losses:dataclass", "is an object of type function"),
        ("my_loses:Gap", "No module named 'my_loses'"),
    ],
)
def test_what_is_no_loss_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        make_loss(name, {})


def test_a_wrong_field_is_pointed_at():
    with pytest.raises(ConfigError, match="unknown parameter 'pwer': did you mean 'power'") as error:
        parse_objective("ce + my_losses:Gap(pwer=2)", "imagenet")
    assert str(error.value).splitlines()[-1].index("^") - 2 == "ce + my_losses:Gap(pwer=2)".index("pwer")
