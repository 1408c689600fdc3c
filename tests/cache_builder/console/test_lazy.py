"""A program lists its commands without importing them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cache_builder.cli.app import app as builder
from trainer.cli.app import app as trainer


@pytest.mark.parametrize("app", [builder, trainer], ids=["kdcache", "kdtrain"])
def test_a_summary_is_how_the_help_of_the_command_begins(app: typer.Typer) -> None:
    group: Any = typer.main.get_command(app)
    for name, listed in group.commands.items():
        assert " ".join(group.get_command(None, name).help.split()).startswith(listed.help)


# The options of kdtrain are fields of pydantic; those of kdcache's commands are read when one is called.
@pytest.mark.parametrize(
    ("program", "a_command", "unwanted"),
    [
        ("cache_builder", "build", {"torch", "zarr", "numpy", "pydantic", "cache_builder.cli.build"}),
        ("trainer", "compare", {"torch", "zarr", "numpy", "trainer.cli.compare"}),
    ],
)
def test_help_imports_no_command_and_nothing_that_is_slow(
    program: str, a_command: str, unwanted: set[str]
) -> None:
    script = (
        f"import sys; from typer.testing import CliRunner; from {program}.cli.app import app\n"
        f"assert ' {a_command} ' in CliRunner().invoke(app, ['--help']).output\n"
        f"print({unwanted} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_an_unknown_command_is_answered_with_a_near_one() -> None:
    ended = CliRunner().invoke(builder, ["buidl"])
    assert ended.exit_code == 2
    assert "'build'" in ended.output
