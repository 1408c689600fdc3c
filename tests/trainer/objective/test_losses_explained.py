from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from cache_builder.format.errors import ConfigError
from trainer.losses import LOSSES, RECIPES
from trainer.objective.losses_explained import (
    explain_loss,
    field_documents,
    loss_rows,
    losses_table,
    markdown_table,
)


def test_the_table_has_a_row_per_loss_with_its_fields_needs_and_paper():
    rows = {row.name: row for row in loss_rows()}
    assert list(rows) == list(LOSSES)
    assert rows["dkd"].fields == "alpha=1, beta=8, temperature=4"
    assert rows["dkd"].needs == "teacher, labels"
    assert rows["standardized"].fields == "loss=kd(temperature=2.0)"
    assert rows["mlkd"].needs == "teacher, two views, batch"
    assert rows["ltkd"].needs == "teacher, batch, class counts"
    assert rows["ensemble"].needs == "teachers"
    assert rows["tgeo"].needs == "teacher, labels, held-out samples"
    assert rows["refined_self"].needs == "labels"
    assert "only the abstract could be read" in rows["redistill"].unconfirmed
    assert all("arXiv" in row.paper or "CVPR" in row.paper for row in rows.values())


def test_a_terminal_gets_every_row_whole():
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(losses_table())
    shown = console.export_text()
    for row in loss_rows():
        line = next(line for line in shown.splitlines() if line.split(" ")[0] == row.name)
        assert row.needs.split(",")[0] in line
    assert "weights=[2.0, 0.5]" in shown


def test_markdown_has_the_same_rows():
    lines = markdown_table().splitlines()
    assert len(lines) == len(LOSSES) + 2
    assert "| `kd` | `temperature=4` | teacher | Hinton et al., arXiv 1503.02531 |" in lines[3]


@pytest.mark.parametrize("name", LOSSES)
def test_every_field_is_explained(name):
    fields = {field.name for field in dataclasses.fields(LOSSES[name])}
    assert fields <= set(field_documents(LOSSES[name]))
    assert all(field_documents(LOSSES[name])[field] for field in fields)


@pytest.mark.parametrize("name", RECIPES)
def test_an_explanation_says_formula_fields_source_and_objective(name):
    explained = explain_loss(name)
    assert f"--loss {name} alone means:" in explained
    for published in RECIPES[name].values():
        assert published.objective in explained
    if name in LOSSES:
        assert "``" in explained
        assert f"paper: {LOSSES[name].paper}" in explained
        for field in dataclasses.fields(LOSSES[name]):
            assert f"  {field.name} = " in explained


def test_a_recipe_of_other_losses_is_explained_too():
    assert "--aux-head 'linear(mix=0.5,temperature=1)'" in explain_loss("dho")


def test_an_unknown_name_gets_suggestions():
    with pytest.raises(ConfigError, match="unknown loss 'dkdd': did you mean 'dkd'"):
        explain_loss("dkdd")
