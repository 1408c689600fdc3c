"""What the commands do. Imported by ``trainer.cli.app`` when a command runs, so that --help stays fast."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic import ValidationError

from cache_builder.format import ConfigError, KDCacheError

if TYPE_CHECKING:
    from rich.console import Console

    from trainer.run.config import TrainConfig
    from trainer.run.inputs import Inputs
    from trainer.run.loop import TrainResult


def run_train(given: dict[str, Any], resume: bool) -> None:
    """Train with the flags given and say where the results lie."""
    for flag in ("data", "out"):
        if given[flag] is None:
            raise ConfigError(f"--{flag} is missing; kdtrain --help shows examples")
    from trainer.run.inputs import claim_output, open_inputs

    _log(None)  # a server that is away is told
    settings = make_settings(given)
    with ExitStack() as stack:
        claim_output(settings, resume, stack)
        inputs = open_inputs(settings, stack)
        result = _trained(settings, resume, inputs)
    from trainer.run.run_folder import BEST, REPORT

    if result.was_finished:
        typer.echo(f"{result.out} is finished: nothing to do")
    if result.last is not None and result.best_top1 is not None:
        typer.echo(
            f"held out: {result.last.top1:.2%} after the last epoch, best {result.best_top1:.2%} in epoch "
            f"{result.best_epoch}"
        )
    typer.echo(f"weights {result.out / BEST}, report {result.out / REPORT}")


def _trained(settings: TrainConfig, resume: bool, inputs: Inputs) -> TrainResult:
    from rich.console import Console

    from trainer.run.loop import train
    from trainer.run.progress import ConsoleDisplay

    console = Console()
    _log(console)
    return train(settings, resume=resume, display=ConsoleDisplay(console), inputs=inputs)


def make_settings(given: dict[str, Any]) -> TrainConfig:
    """The flags as a ``TrainConfig``; raises :class:`ConfigError` naming the flag that is wrong."""
    from trainer.run.config import TrainConfig

    values = {**given, "mean": _triple("--mean", given["mean"]), "std": _triple("--std", given["std"])}
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        flag = "--" + str(problem["loc"][0]).replace("_", "-")
        raise ConfigError(f"{flag} {problem['input']}: {problem['msg']}") from error


def run_eval(
    run: Path,
    data: str | None,
    weights: str,
    cache: str | None,
    view: int,
    limit: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Evaluate and print."""
    from trainer.run.evaluation_inputs import open_evaluation

    _log(None)
    with ExitStack() as stack:
        inputs = open_evaluation(
            run, data, stack, weights=weights, cache=cache, view=view, limit=limit, device=device
        )
        from trainer.run.evaluate import evaluate

        result = evaluate(inputs, device)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result)))
        return
    typer.echo(f"{result.weights} on {result.data}, {result.samples:,} samples")
    if result.agreement is not None:
        typer.echo(f"agreement with the teacher {result.agreement:.2%} (view {result.view})")
    if result.top1 is not None and result.top5 is not None:
        typer.echo(f"top-1 {result.top1:.2%}  top-5 {result.top5:.2%}  NLL {result.nll:.4f}")
    if result.order is not None:
        typer.echo(result.order.warning(result.data, "evaluate", "student"))


def run_compare(given: dict[str, Any], losses: str, seeds: int, jobs: int | None) -> None:
    """Compare methods, print the table and say where it lies; raise where any run failed."""
    from trainer.comparison.folder import check_output
    from trainer.comparison.methods import check_methods
    from trainer.run.inputs import open_inputs

    _log(None)
    settings = make_settings({**given, "mean": None, "std": None})
    check_output(settings.out)
    check_methods(losses)
    with ExitStack() as stack:
        inputs = open_inputs(settings.model_copy(update={"loss": "ce"}), stack)
        from rich.console import Console

        from trainer.comparison.display import CompareDisplay
        from trainer.comparison.report import CHART, TABLE, print_table
        from trainer.comparison.runs import compare

        console = Console()
        _log(console)
        table = compare(settings, losses, seeds, jobs, CompareDisplay(console), inputs)
    print_table(table, console)
    typer.echo(f"table {settings.out / TABLE}, picture {settings.out / CHART}")
    failed = [run for line in table for run in line.runs if run.failure is not None]
    if failed:
        raise KDCacheError(
            f"{len(failed)} of {len(table) * seeds} runs failed, as the table says; the same command tries "
            "again those that broke off"
        )


def run_losses(name: str | None, *, selftest: bool, markdown: bool) -> None:
    """List the losses, explain one, or measure all of them."""
    from rich.console import Console

    from trainer.objective.catalogue import explain_loss, losses_table, markdown_table

    if selftest:
        _selftest()
    elif markdown:
        typer.echo(markdown_table())
    elif name:
        typer.echo(explain_loss(name))
    else:
        # In a pipe or a file there is no width to fit: a line per loss reads and greps better.
        Console(width=None if sys.stdout.isatty() else 240).print(losses_table())


def _selftest() -> None:
    from trainer.losses.selftest import CLASSES, SAMPLES, selftest

    typer.echo(f"{SAMPLES} samples, float64; slope: the gradient along a fixed unit direction\n")
    typer.echo(f"{'loss':<18}{'classes':>8}{'value':>25}{'|gradient|':>14}{'slope':>24}")
    wrong = 0
    for verdict in selftest():
        found, says = verdict.measured, "" if verdict.is_right else f"  WRONG, expected {verdict.kept}"
        wrong += not verdict.is_right
        typer.echo(
            f"{found.name:<18}{found.classes:>8}{found.value:>25.16g}{found.gradient_norm:>14.6g}"
            f"{found.slope:>24.14g}{says}"
        )
    if wrong:
        raise KDCacheError(f"{wrong} of these differ from the independent evaluation that is kept")
    typer.echo(f"\nall agree with the independent evaluation, at C = {' and '.join(map(str, CLASSES))}")


def _triple(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{flag} {text}: expected three numbers such as 0.485,0.456,0.406") from error
    if len(values) != 3:
        raise ConfigError(f"{flag} {text}: expected three numbers, got {len(values)}")
    return values


def _log(console: Console | None) -> None:
    """Warnings (a server that is away, samples left out) as plain lines on stderr.

    On a terminal they go through the console, which keeps its live line below them.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if console is not None and console.is_terminal:
        from rich.logging import RichHandler

        handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, format="%(message)s", force=True)
