"""``kdcache demo``."""

from __future__ import annotations

import typer
from pydantic import Field

from cache_builder.console.ending import reported
from cache_builder.console.lazy import STYLE
from cache_builder.console.options import Settings, takes_settings

commands = typer.Typer(**STYLE)


class DemoSettings(Settings):
    """Settings of ``kdcache demo``; each field is the flag of the same name."""

    out: str = "demo-out"
    """Folder for everything the demo makes."""
    seeds: int = Field(default=3, ge=1, le=20)
    """Students that are trained per method."""


@commands.command()
@takes_settings(reported)
def demo(settings: DemoSettings) -> None:
    """Teacher, cache, server and students on real handwritten digits, in two minutes on two cores.

    Trains the same student with hard labels and from the served teacher logits, and prints which was better.
    """
    from cache_builder.demo.run import run_demo

    run_demo(settings.out, settings.seeds)
