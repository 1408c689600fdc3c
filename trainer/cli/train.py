"""``kdtrain`` itself: one training run."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from cache_builder.console.options import takes_settings
from cache_builder.console.version import Version
from trainer.cli.ending import reported
from trainer.run.settings import MACHINE, TrainSettings

if TYPE_CHECKING:
    from trainer.run.inputs import Inputs
    from trainer.run.loop import TrainResult
    from trainer.run.run_folder import RunFolder

EXAMPLES = """
**Examples**

`kdtrain --cache http://host:8000/v1/caches/vit_l --data imagefolder:/data/train
--val-data imagefolder:/data/val --student resnet18 --loss kd --epochs 30 --out runs/a`

`kdtrain --cache r50.zarr --data cifar100:/data --val-data cifar100:/data:test --student resnet20
--loss "ce*1.0 + dkd(alpha=1, beta=8, temperature=4, warmup_epochs=20)*1.0" --epochs 240 --out runs/b`

`kdtrain --data digits:train --val-data digits:test --recipe pad-crop-flip:flip=0 --student cnn3
--loss ce --out runs/teacher`  (no cache: hard labels)

`kdtrain --cache vit_l.zarr --cache swin_b.zarr --data imagefolder:/data/train --loss ensemble
--out runs/c`  (two teachers)

`kdtrain --cache vit_l.zarr --data imagefolder:/data/train --loss dho --labelled 0.1 --out runs/d`
(a tenth of the labels; an auxiliary head learns from the teacher)

`kdtrain … --out runs/a --resume`  (the same command, continued)

`kdtrain compare --help`, `kdtrain eval runs/a`, `kdtrain losses`, `kdtrain losses dkd`
"""


@takes_settings(reported)
def train(
    context: typer.Context,
    settings: TrainSettings,
    version: Version = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out; everything else must be the same.",
            rich_help_panel=MACHINE.panel,
        ),
    ] = False,
) -> None:
    """Train a student from a cache of teacher logits; the teacher itself never runs.

    Renders the views the teacher saw, fetches its answers ahead of need, evaluates after every epoch, and
    survives kills and server restarts.
    """
    run_train(settings, resume)


def run_train(settings: TrainSettings, resume: bool) -> None:
    """Train and say where the results lie."""
    from trainer.cli.log import show_warnings
    from trainer.run.inputs import claim_output, is_first_process, open_inputs

    show_warnings(None)  # such as a server that is away
    # torch's C++ parts warn of what is meant, in every process (``trainer.run.device``). Read at its import.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with ExitStack() as stack:
        folder = claim_output(settings, resume, stack)
        inputs = open_inputs(settings, stack)
        result = _trained(settings, resume, inputs, folder)
    if is_first_process():
        _tell(result)


def _tell(result: TrainResult) -> None:
    from trainer.run.run_folder import BEST, REPORT

    if result.was_finished:
        typer.echo(f"{result.out} is finished: nothing to do")
    if result.last is not None and result.best_top1 is not None:
        typer.echo(
            f"held out: {result.last.top1:.2%} after the last epoch, best {result.best_top1:.2%} in epoch "
            f"{result.best_epoch}"
        )
    typer.echo(f"weights {result.out}/{BEST}, report {result.out}/{REPORT}")


def _trained(settings: TrainSettings, resume: bool, inputs: Inputs, folder: RunFolder) -> TrainResult:
    from rich.console import Console

    from trainer.cli.log import show_warnings
    from trainer.run.loop import train
    from trainer.run.progress import ConsoleDisplay

    console = Console()
    show_warnings(console)
    return train(settings, resume=resume, display=ConsoleDisplay(console), inputs=inputs, folder=folder)
