"""The ``kdtrain`` command: training, and commands that are each imported when they are needed."""

from __future__ import annotations

import typer

from cache_builder.console.dotted import find_in_working_directory
from cache_builder.console.lazy import STYLE, LazyCommand, lazy_group
from cache_builder.console.stores import OF_STORES
from trainer.cli.train import EXAMPLES, train
from trainer.comparison.children import end_with_parent

_COMMANDS = {
    "eval": LazyCommand(
        "trainer.cli.evaluate",
        "Evaluate a run: top-1, top-5 and NLL on labelled images, or agreement with its teacher.",
    ),
    "losses": LazyCommand(
        "trainer.cli.losses", "List the losses, explain one, or check that this machine computes them right."
    ),
    "compare": LazyCommand(
        "trainer.cli.compare",
        "Train the same student with several methods and seeds; one table, one picture.",
    ),
}

app = typer.Typer(name="kdtrain", cls=lazy_group(_COMMANDS), **STYLE)
app.callback(invoke_without_command=True, epilog=f"{EXAMPLES}\n{OF_STORES}")(train)


def prepare() -> None:
    """What this process needs before a command runs in it."""
    find_in_working_directory()
    end_with_parent()


def main() -> None:
    """Entry point of ``python -m trainer``, and of ``kdtrain`` by way of :mod:`kdcache`."""
    prepare()
    app()
