"""``kdtrain losses``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cache_builder.console.lazy import STYLE
from cache_builder.console.options import Option, Settings, takes_settings
from cache_builder.format.errors import KDCacheError
from trainer.cli.ending import reported

commands = typer.Typer(**STYLE)


class LossesSettings(Settings):
    """Settings of ``kdtrain losses``; each field is the flag of the same name."""

    name: Annotated[str | None, Option(is_argument=True)] = None
    """A loss, for its formula, fields and sources."""
    selftest: bool = False
    """Print value and gradient of every loss on a fixed batch, against an independent evaluation."""
    markdown: bool = False
    """Print the table as trainer/losses/README.md has it."""


@commands.command()
@takes_settings(reported)
def losses(settings: LossesSettings) -> None:
    """List the losses, explain one, or check that this machine computes them right.

    Examples: `kdtrain losses`, `kdtrain losses dkd`, `kdtrain losses --selftest`
    """
    run_losses(settings)


def run_losses(settings: LossesSettings) -> None:
    """List the losses, explain one, or measure all of them."""
    from rich.console import Console

    from trainer.objective.losses_explained import explain_loss, losses_table, markdown_table

    if settings.selftest:
        _selftest()
    elif settings.markdown:
        typer.echo(markdown_table())
    elif settings.name:
        typer.echo(explain_loss(settings.name))
    else:
        # In a pipe or a file there is no width to fit: a line per loss reads and greps better.
        Console(width=None if sys.stdout.isatty() else 240).print(losses_table())


def _selftest() -> None:
    from trainer.losses.selftest import CLASSES, SAMPLES, selftest

    typer.echo(f"{SAMPLES} samples, float64; slope: the gradient along a fixed unit direction\n")
    typer.echo(f"{'loss':<18}{'classes':>8}{'value':>25}{'|gradient|':>14}{'slope':>24}")
    wrong = 0
    says = {True: "", False: "  WRONG, expected {}", None: "  nothing is kept to compare it with"}
    for verdict in selftest():
        found, verdict_says = verdict.measured, says[verdict.is_right].format(verdict.kept)
        wrong += verdict.is_right is False
        typer.echo(
            f"{found.name:<18}{found.classes:>8}{found.value:>25.16g}{found.gradient_norm:>14.6g}"
            f"{found.slope:>24.14g}{verdict_says}"
        )
    if wrong:
        raise KDCacheError(f"{wrong} of these differ from the independent evaluation that is kept")
    typer.echo(f"\nall agree with the independent evaluation, at C = {' and '.join(map(str, CLASSES))}")
