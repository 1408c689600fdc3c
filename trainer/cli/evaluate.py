"""``kdtrain eval``."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from typing import Annotated

import typer
from pydantic import Field

from cache_builder.console.lazy import STYLE
from cache_builder.console.names import check_device_name
from cache_builder.console.options import Option, Settings, takes_settings
from trainer.cli.ending import reported

commands = typer.Typer(**STYLE)


class EvalSettings(Settings):
    """Settings of ``kdtrain eval``; each field is the flag of the same name."""

    run: Annotated[str, Option(is_argument=True, metavar="run")]
    """Folder of the run, or its URL on an object store."""
    data: str | None = None
    """Images to evaluate on. Default: the run's own held-out data."""
    weights: str = "best"
    """Weights to evaluate: best, last or a FILE."""
    cache: str | None = None
    """Compare with the teacher of this cache, on its own data set."""
    view: int = Field(default=0, ge=0)
    """The cache's view to compare in, counted from 0."""
    limit: int | None = Field(default=None, ge=1)
    """With --cache: only the first N images of --data."""
    device: Annotated[str, Option(check=check_device_name)] = "auto"
    """Device that the student runs on: auto, cpu, cuda or cuda:N."""
    as_json: Annotated[bool, Option(flag="--json")] = False
    """Print one machine-readable JSON object."""


@commands.command("eval")
@takes_settings(reported)
def evaluate(settings: EvalSettings) -> None:
    """Evaluate a run: top-1, top-5 and NLL on labelled images, or agreement with its teacher.

    Examples: `kdtrain eval runs/a`, `kdtrain eval runs/a --data imagefolder:/data/test --weights last`,
    `kdtrain eval runs/a --cache vit_l.zarr --data imagefolder:/data/train`
    """
    from trainer.cli.log import show_warnings
    from trainer.run.evaluation_inputs import open_evaluation

    show_warnings(None)
    with ExitStack() as stack:
        inputs = open_evaluation(
            settings.run,
            settings.data,
            stack,
            weights=settings.weights,
            cache=settings.cache,
            view=settings.view,
            limit=settings.limit,
            device=settings.device,
        )
        from trainer.run.evaluate import evaluate as evaluated

        result = evaluated(inputs, settings.device)
    if settings.as_json:
        typer.echo(json.dumps(dataclasses.asdict(result)))
        return
    typer.echo(f"{result.weights} on {result.data}, {result.samples:,} samples")
    if result.agreement is not None:
        typer.echo(f"agreement with the teacher {result.agreement:.2%} (view {result.view})")
    if result.top1 is not None and result.top5 is not None:
        typer.echo(f"top-1 {result.top1:.2%}  top-5 {result.top5:.2%}  NLL {result.nll:.4f}")
    if result.order is not None:
        typer.echo(result.order.warning(result.data, "evaluate", "student"))
