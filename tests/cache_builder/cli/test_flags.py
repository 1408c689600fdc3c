"""What a user types stays: ``flags.txt`` lists every option of every command with what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main

from cache_builder.cli.app import app as builder
from cache_builder.console.options import REQUIRED
from trainer.cli.app import app as trainer

PROGRAMS = {"kdcache": builder, "kdtrain": trainer}
FLAGS = Path(__file__).with_name("flags.txt")


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of both programs under the words that call it."""
    for name, app in PROGRAMS.items():
        program: Any = typer.main.get_command(app)
        yield name, program
        context = program.make_context(name, [], resilient_parsing=True)
        for word in program.list_commands(context):
            yield f"{name} {word}", program.get_command(context, word)


def options() -> Iterator[tuple[str, Any]]:
    """Every option and argument of every command."""
    for name, command in commands():
        yield from ((name, option) for option in command.params)


def described(option: Any) -> str:
    """One line: flags or place, default, and what else is needed to type it right."""
    names = "/".join([*option.opts, *option.secondary_opts])
    default = None if option.default in ((), []) else option.default
    facts = [
        f"default {default}",
        "required" if option.required or (option.help or "").endswith(REQUIRED) else "",
        "several" if option.multiple or option.nargs < 0 else "",
        "switch" if getattr(option, "is_flag", False) else "",
        f"panel {panel}" if (panel := getattr(option, "rich_help_panel", None)) else "",
    ]
    return f"{names}: {', '.join(fact for fact in facts if fact)}"


def listing() -> str:
    """The contents of ``flags.txt``."""
    return "".join(f"{line}\n" for line in sorted(f"{name} {described(one)}" for name, one in options()))


def test_flags_defaults_and_panels_are_what_they_were() -> None:
    assert listing() == FLAGS.read_text()


def test_every_help_text_is_a_sentence() -> None:
    said = {f"{name} {option.name}": option.help or "" for name, option in options()}
    assert [name for name, text in said.items() if not (text[:1].isupper() or text[:1] == "`")] == []
    assert [name for name, text in said.items() if not text.endswith(".") or len(text.split()) < 4] == []
