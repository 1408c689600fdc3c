"""The options of ``kdtrain compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.ending import reported

COMPARE_EXAMPLES = """
**Examples**

`kdtrain compare --cache http://host:8000/v1/caches/r50 --data cifar100:/data --val-data cifar100:/data:test
--student resnet20 --losses kd,dkd,pld --seeds 3 --epochs 240 --out runs/compare`

`kdtrain compare … --losses "kd, kd(temperature=2), ce*1.0 + dkd(alpha=1,beta=2)*0.5" --out runs/t`
(commas in brackets do not separate methods)

`kdtrain compare … --losses all --jobs 2 --device cuda --out runs/all`

The same command goes on where it was stopped, and tries again what failed.
"""

_DATA, _STUDENT = "Data and teacher", "Student and objective"
_OPTIMISER, _MACHINE = "Optimiser", "Run and machine"


def compare(
    context: typer.Context,
    cache: Annotated[
        list[str],
        typer.Option(
            help="URL (http://host:8000/v1/caches/NAME) or path of the teacher's cache. Several teachers: "
            "once for each, as in kdtrain.",
            rich_help_panel=_DATA,
        ),
    ],
    data: Annotated[
        str, typer.Option(help="Training images, those of the cache or a part.", rich_help_panel=_DATA)
    ],
    val_data: Annotated[
        str, typer.Option(help="Held-out images, on which methods are compared.", rich_help_panel=_DATA)
    ],
    losses: Annotated[
        str,
        typer.Option(
            help="Methods between commas: names (their published objectives), objectives as in "
            '"kd,ce*0.1 + kd(temperature=2)*0.9", or all. Hard labels always take part.',
            rich_help_panel=_STUDENT,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the comparison; one that was begun is continued.", rich_help_panel=_MACHINE
        ),
    ],
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each method: seeds 0 to N - 1.", rich_help_panel=_STUDENT)
    ] = 3,
    student: Annotated[
        str, typer.Option(help="As in kdtrain: resnet18, cnn3(width=8), …", rich_help_panel=_STUDENT)
    ] = "resnet18",
    published: Annotated[
        str,
        typer.Option(
            help="Whose settings a method's name stands for: imagenet, cifar100, auto (by size).",
            rich_help_panel=_STUDENT,
        ),
    ] = "auto",
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training images.", rich_help_panel=_OPTIMISER)
    ] = 30,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images of one optimiser step.", rich_help_panel=_OPTIMISER)
    ] = 128,
    optimizer: Annotated[
        str, typer.Option(help="sgd (Nesterov) or adamw.", rich_help_panel=_OPTIMISER)
    ] = "sgd",
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate. Default 0.1 per 256 images (sgd), 1e-3 (adamw).",
            rich_help_panel=_OPTIMISER,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Default 1e-4 (sgd), 0.05 (adamw).", rich_help_panel=_OPTIMISER)
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pixels the student sees. Default: what the teacher saw.", rich_help_panel=_DATA
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only the first N images, as in kdcache build --limit.", rich_help_panel=_DATA
        ),
    ] = None,
    allow_render_drift: Annotated[
        bool,
        typer.Option(
            "--allow-render-drift",
            help="Train although this machine renders other pictures.",
            rich_help_panel=_MACHINE,
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs side by side. Default: one per core; on a GPU one after another.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Loader processes of each run.", rich_help_panel=_MACHINE),
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
    from trainer.commands import run_compare

    with reported():
        run_compare(settings, losses, seeds, jobs)
