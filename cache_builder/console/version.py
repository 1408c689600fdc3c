"""``--version`` of both programs."""

from __future__ import annotations

from typing import Annotated

import typer


def _show(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"kdcache {version('kdcache')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show, is_eager=True, expose_value=False, help="Print the version and exit."
    ),
]
"""The option, for the function that stands for a whole program."""
