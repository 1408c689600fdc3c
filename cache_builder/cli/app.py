"""The ``kdcache`` command: its commands, each in a module of its own that is imported when it is needed."""

from __future__ import annotations

import typer

from cache_builder.console.lazy import STYLE, LazyCommand, lazy_group
from cache_builder.console.stores import OF_STORES
from cache_builder.console.version import Version

_COMMANDS = {
    "build": LazyCommand(
        "cache_builder.cli.build",
        "Run a teacher over a data set and write its compressed logits for several views of each sample.",
    ),
    "serve": LazyCommand("cache_builder.cli.serve", "Serve finished caches over HTTP, by sample id."),
    "inspect": LazyCommand(
        "cache_builder.cli.inspect",
        "Show what a cache holds: manifest, size, completeness, the teacher's accuracy, one sample.",
    ),
    "demo": LazyCommand(
        "cache_builder.cli.demo",
        "Teacher, cache, server and students on real handwritten digits, in two minutes on two cores.",
    ),
    "verify": LazyCommand(
        "cache_builder.cli.verify",
        "Check that a cache is whole, that it is of this data set, and that it says what the teacher says.",
    ),
    "export": LazyCommand(
        "cache_builder.cli.interchange", "Write the records of a cache as a data frame or as arrays."
    ),
    "import": LazyCommand(
        "cache_builder.cli.interchange",
        "Turn logits that another program saved into a cache, and say what is not known about them.",
    ),
    "merge": LazyCommand("cache_builder.cli.exchange", "Join the parts of a cache that were built apart."),
    "extend": LazyCommand("cache_builder.cli.exchange", "Add views to a finished cache."),
}

app = typer.Typer(
    name="kdcache",
    cls=lazy_group(_COMMANDS),
    no_args_is_help=True,
    help="Run the teacher once, keep what it said, train as many students as you like.",
    epilog=f"A first look, two minutes, nothing needed: `kdcache demo`\n\n{OF_STORES}",
    **STYLE,
)


@app.callback()
def kdcache(version: Version = False) -> None:
    """What all commands have in common."""


def main() -> None:
    """Entry point of the ``kdcache`` script."""
    app()
