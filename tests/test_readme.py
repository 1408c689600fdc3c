"""The README tells the truth: its example is a test, its flags exist, its figures are a benchmark's."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from benchmarks.report import markdown_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    """Every kdcache and kdtrain command line of the README."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").split("\n")
    words = [shlex.split(line, comments=True) for line in lines]
    return [
        [word for word in line if word != "&"] for line in words if line and line[0] in ("kdcache", "kdtrain")
    ]


def options_of(words: list[str]) -> set[str]:
    """The flags of a command, from the program itself."""
    if words[0] == "kdcache":
        from cache_builder.cli.app import app
    else:
        from trainer.cli.app import app
    command = typer.main.get_command(app)
    context = typer.Context(command)
    for word in words[1:2]:
        command = command.get_command(context, word) or command
    return {flag for parameter in command.params for flag in parameter.opts}


def test_readme_shows_the_commands() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_flag_in_the_readme_exists(words: list[str]) -> None:
    used = {word for word in words if word.startswith("--")}
    assert used <= options_of(words)


def test_the_programs_in_the_readme_are_the_tested_ones() -> None:
    examples = {file.read_text() for file in (ROOT / "examples").glob("*.py")}
    assert set(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)) == examples


def test_every_figure_in_the_readme_is_a_benchmark_result() -> None:
    figures = re.findall(r"<!-- figures:(\w+) -->\n(.*?)\n<!-- /figures -->", README, flags=re.DOTALL)
    assert figures
    for name, shown in figures:
        result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        assert markdown_table(result["columns"], result["rows"]) in shown, name


def test_paths_named_in_the_readme_exist() -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", README, flags=re.DOTALL)
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in prose.splitlines() if line[:1] == "#"}
    for link in re.findall(r"\]\((?!http)([^)]+)\)", prose):
        path, _, heading = link.partition("#")
        assert (ROOT / path).exists(), link
        assert not heading or heading in headings, link
