"""Adding a loss takes a dataclass and a line in ``LOSSES``; what forgetting something does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import trainer.losses
from cache_builder.format import ConfigError
from tests.trainer.losses import test_laws
from tests.trainer.losses.cases import batch
from tests.trainer.runs import config, write_digits_cache
from trainer.cli.losses import LossesSettings, run_losses
from trainer.comparison.methods import parse_methods
from trainer.losses import LOSSES, Loss, selftest
from trainer.objective.losses_explained import loss_rows, markdown_table
from trainer.objective.objective import Objective
from trainer.objective.terms import Term
from trainer.run.loop import train

README = Path(trainer.losses.__file__).with_name("README.md")


@pytest.fixture
def halved():
    """A new loss, of a class that goes away with the test."""

    @dataclass(frozen=True)
    class HalfSquare(Loss):
        """``weight / 2 mean_c (s_c - t_c)^2``."""

        name = "half_square"
        paper = "this test"

        weight: float = 1.0
        """Of everything."""

        def formula(self, student: torch.Tensor, teacher: torch.Tensor, labels: object) -> torch.Tensor:
            return 0.5 * self.weight * (student - teacher).square().mean(-1)

    return HalfSquare


def registered(monkeypatch, kind):
    monkeypatch.setitem(LOSSES, kind.name, kind)


def test_class_and_line_are_all_the_trainer_needs(monkeypatch, halved):
    registered(monkeypatch, halved)
    student, teacher, labels = batch()
    objective = Objective([Term(name="half_square", configuration={"weight": 2.0}, weight=3.0)])
    total, _ = objective(student, teacher, labels, 0)
    torch.testing.assert_close(total, 3 * (student - teacher).square().mean())
    assert loss_rows()[-1].fields == "weight=1"


def test_every_command_knows_it(monkeypatch, halved, tmp_path, capsys):
    registered(monkeypatch, halved)
    run_losses(LossesSettings(name="half_square"))
    explained = capsys.readouterr().out
    assert "half_square(weight=1)" in explained
    assert "  weight = 1: Of everything." in explained
    assert "imagenet  half_square*1.0" in explained
    run_losses(LossesSettings())
    assert "half_square" in capsys.readouterr().out
    assert [method.minimises for method in parse_methods("half_square", "imagenet")] == [
        "ce*1",
        "half_square*1",
    ]
    assert "half_square" in {method.name for method in parse_methods("all", "imagenet")}
    cache = write_digits_cache(tmp_path / "digits.zarr")
    train(config(tmp_path / "a", cache, loss="half_square*0.1 + ce", epochs=1))
    assert "train_half_square" in (tmp_path / "a" / "metrics.jsonl").read_text()


def test_the_selftest_measures_it_though_nothing_is_kept(monkeypatch, halved, capsys):
    monkeypatch.setattr(selftest, "LOSSES", {"kd": LOSSES["kd"], "half_square": halved})
    run_losses(LossesSettings(selftest=True))
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "nothing is kept to compare it with" in said["half_square"]
    assert "nothing is kept" not in said["kd"]


def test_a_formula_that_takes_the_mean_itself_is_refused(halved):
    class Averaged(halved):
        def formula(self, student, teacher, labels):
            return super().formula(student, teacher, labels).mean()

    with pytest.raises(ConfigError, match=r"gave \[\] for 6 samples, expected \[6\].*couples_samples"):
        Averaged()(*batch())


def test_a_forgotten_row_is_noticed(monkeypatch, halved):
    test_laws.test_the_table_beside_the_losses_is_the_codes()
    registered(monkeypatch, halved)
    with pytest.raises(AssertionError):
        test_laws.test_the_table_beside_the_losses_is_the_codes()


def test_the_row_that_is_missing_is_what_the_command_prints(monkeypatch, halved):
    registered(monkeypatch, halved)
    missing = set(markdown_table().splitlines()) - set(README.read_text().splitlines())
    assert missing == {"| `half_square` | `weight=1` | teacher | this test |  |"}


def test_a_forgotten_line_is_noticed(halved):
    test_laws.test_every_loss_class_is_registered()
    halved.__module__ = "trainer.losses.half_square"
    with pytest.raises(AssertionError):
        test_laws.test_every_loss_class_is_registered()
    halved.__module__ = __name__


def test_a_forgotten_dataclass_decorator_is_noticed(monkeypatch):
    class Plain(Loss):
        """Not a dataclass."""

        name, paper = "plain", "this test"

    registered(monkeypatch, Plain)
    with pytest.raises(ConfigError, match="'plain' is a loss, but no dataclass"):
        test_laws.test_is_a_frozen_documented_dataclass("plain", {})


def test_a_line_under_another_name_is_noticed(monkeypatch, halved):
    monkeypatch.setitem(LOSSES, "half", halved)
    with pytest.raises(AssertionError):
        test_laws.test_registry_names_agree()


def test_a_missing_second_evaluation_is_noticed(monkeypatch, halved):
    registered(monkeypatch, halved)
    with pytest.raises(AssertionError):
        test_laws.test_every_loss_has_a_second_evaluation()
