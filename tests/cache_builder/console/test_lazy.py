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


def test_the_list_of_commands_imports_none_of_them() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from cache_builder.cli.app import app\n"
        "assert ' build ' in CliRunner().invoke(app, ['--help']).output\n"
        "print({'pydantic', 'numpy', 'cache_builder.cli.build'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_an_unknown_command_is_answered_with_a_near_one() -> None:
    ended = CliRunner().invoke(builder, ["buidl"])
    assert ended.exit_code == 2
    assert "'build'" in ended.output
