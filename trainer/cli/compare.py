"""The options of ``kdtrain compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.ending import reported
from trainer.cli.options import (
    DATA,
    MACHINE,
    STUDENT,
    AllowRenderDrift,
    BatchSize,
    Device,
    Epochs,
    ImageSize,
    Limit,
    Lr,
    Optimizer,
    Published,
    Student,
    WeightDecay,
)

COMPARE_EXAMPLES = """
**Examples**

`kdtrain compare --cache http://host:8000/v1/caches/r50 --data cifar100:/data --val-data cifar100:/data:test
--student resnet20 --losses kd,dkd,pld --seeds 3 --epochs 240 --out runs/compare`

`kdtrain compare … --losses "kd, kd(temperature=2), ce*1.0 + dkd(alpha=1,beta=2)*0.5" --out runs/t`
(commas in brackets do not separate methods)

`kdtrain compare … --losses all --jobs 2 --device cuda --out runs/all`

The same command goes on where it was stopped, and tries again what failed.
"""


def compare(
    context: typer.Context,
    cache: Annotated[
        list[str],
        typer.Option(
            help="URL (http://host:8000/v1/caches/NAME) or path of the teacher's cache. Several teachers: "
            "once for each, as in kdtrain.",
            rich_help_panel=DATA,
        ),
    ],
    data: Annotated[
        str, typer.Option(help="Training images, those of the cache or a part.", rich_help_panel=DATA)
    ],
    val_data: Annotated[
        str, typer.Option(help="Held-out images, on which methods are compared.", rich_help_panel=DATA)
    ],
    losses: Annotated[
        str,
        typer.Option(
            help="Methods between commas: names (their published objectives), objectives as in "
            '"kd,ce*0.1 + kd(temperature=2)*0.9", or all. Hard labels always take part.',
            rich_help_panel=STUDENT,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the comparison; one that was begun is continued.", rich_help_panel=MACHINE
        ),
    ],
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each method: seeds 0 to N - 1.", rich_help_panel=STUDENT)
    ] = 3,
    student: Student = "resnet18",
    published: Published = "auto",
    epochs: Epochs = 30,
    batch_size: BatchSize = 128,
    optimizer: Optimizer = "sgd",
    lr: Lr = None,
    weight_decay: WeightDecay = None,
    image_size: ImageSize = None,
    limit: Limit = None,
    allow_render_drift: AllowRenderDrift = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs side by side. Default: one per core; on a GPU one after another.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Loader processes of each run.", rich_help_panel=MACHINE),
    ] = None,
) -> None:
    """Train the same student with several methods and seeds; one table, one picture.

    Hard labels come first: the same views and seeds without the teacher. Each run is a kdtrain of its own in
    OUT/runs, several side by side. The table (OUT/compare.md, .csv) has held-out top-1 as mean ± standard
    deviation over seeds, the difference to hard labels seed by seed, and the time of an epoch;
    OUT/compare.png draws it. A method that fails is named and the others go on. Ctrl-C stops all runs with
    a checkpoint; the same command goes on from there.
    """
    own = ("losses", "seeds", "jobs")
    settings = {name: value for name, value in context.params.items() if name not in own}
    from trainer.cli.commands import run_compare

    with reported():
        run_compare(settings, losses, seeds, jobs)
