"""``kdtrain compare``."""

from __future__ import annotations

from contextlib import ExitStack

import typer

from cache_builder.console.lazy import STYLE
from cache_builder.console.options import takes_settings
from cache_builder.format.errors import KDCacheError
from trainer.cli.ending import reported
from trainer.comparison.settings import CompareSettings

_EXAMPLES = """
**Examples**

`kdtrain compare --cache http://host:8000/v1/caches/r50 --data cifar100:/data --val-data cifar100:/data:test
--student resnet20 --losses kd,dkd,pld --seeds 3 --epochs 240 --out runs/compare`

`kdtrain compare … --losses "kd, kd(temperature=2), ce*1.0 + dkd(alpha=1,beta=2)*0.5" --out runs/t`
(commas in brackets do not separate methods)

`kdtrain compare … --losses all --jobs 2 --device cuda --out runs/all`

The same command goes on where it was stopped, and tries again what failed.
"""

commands = typer.Typer(**STYLE)


@commands.command(epilog=_EXAMPLES)
@takes_settings(reported)
def compare(settings: CompareSettings) -> None:
    """Train the same student with several methods and seeds; one table, one picture.

    Hard labels come first: the same views and seeds without the teacher. Each run is a kdtrain of its own in
    OUT/runs, several side by side. The table (OUT/compare.md, .csv) has held-out top-1 as mean ± standard
    deviation over seeds, the difference to hard labels seed by seed, and the time of an epoch;
    OUT/compare.png draws it. A method that fails is named and the others go on. Ctrl-C stops all runs with
    a checkpoint; the same command goes on from there.
    """
    run_compare(settings)


def run_compare(settings: CompareSettings) -> None:
    """Compare methods, print the table and say where it lies; raise where any run failed."""
    from trainer.cli.log import show_warnings
    from trainer.comparison.folder import check_output
    from trainer.comparison.methods import check_methods
    from trainer.run.inputs import open_inputs

    show_warnings(None)
    check_output(settings.out)
    check_methods(settings.losses)
    of_runs = settings.of_runs()
    with ExitStack() as stack:
        inputs = open_inputs(of_runs.model_copy(update={"loss": "ce"}), stack)
        from rich.console import Console

        from trainer.comparison.display import CompareDisplay
        from trainer.comparison.report import CHART, TABLE, print_table
        from trainer.comparison.runs import compare

        console = Console()
        show_warnings(console)
        display = CompareDisplay(console)
        table = compare(of_runs, settings.losses, settings.seeds, settings.jobs, display, inputs)
    print_table(table, console)
    typer.echo(f"table {settings.out / TABLE}, picture {settings.out / CHART}")
    failed = [run for line in table for run in line.runs if run.failure is not None]
    if failed:
        raise KDCacheError(
            f"{len(failed)} of {len(table) * settings.seeds} runs failed, as the table says; the same "
            "command tries again those that broke off"
        )
