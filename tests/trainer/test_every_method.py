"""Every published objective trains a student from a cache: what its loss needs reaches it, and it learns."""

from __future__ import annotations

import json
import math

import pytest

from tests.trainer.runs import config, write_digits_cache
from trainer.losses import RECIPES
from trainer.run.loop import train


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains(cache, tmp_path, name):
    train(config(tmp_path / "a", cache, loss=name, epochs=1))
    (row,) = metrics(tmp_path / "a")
    terms = {key for key in row if key.startswith("train_")} - {"train_loss", "train_top1", "train_agreement"}
    assert {f"train_{term['name']}" for term in written_terms(tmp_path / "a")} == terms
    assert all(math.isfinite(value) for value in row.values())


def written_terms(out):
    return json.loads((out / "config.json").read_text())["objective"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_it_learns(cache, tmp_path, name):
    result = train(config(tmp_path / "a", cache, loss=name, epochs=8, val_data="digits:test"))
    assert all(math.isfinite(value) for row in metrics(tmp_path / "a") for value in row.values())
    assert result.best_top1 > 0.15  # by chance 0.1
