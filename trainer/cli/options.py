"""Options that kdtrain and its compare have in common, and the panels of their --help."""

from __future__ import annotations

from typing import Annotated

import typer

DATA, STUDENT = "Data and teacher", "Student and objective"
OPTIMISER, MACHINE = "Optimiser", "Run and machine"

Student = Annotated[
    str,
    typer.Option(
        help="Any torchvision classifier, cnn3, resnet20, with arguments as in cnn3(width=8), "
        "or package.module:factory.",
        rich_help_panel=STUDENT,
    ),
]
Published = Annotated[
    str,
    typer.Option(
        help="Whose settings a method's name stands for: imagenet, cifar100, auto (by size).",
        rich_help_panel=STUDENT,
    ),
]
Epochs = Annotated[
    int, typer.Option(min=1, help="Passes over the training images.", rich_help_panel=OPTIMISER)
]
BatchSize = Annotated[
    int,
    typer.Option(min=1, help="Images of one optimiser step, over all devices.", rich_help_panel=OPTIMISER),
]
Optimizer = Annotated[str, typer.Option(help="sgd (Nesterov) or adamw.", rich_help_panel=OPTIMISER)]
Lr = Annotated[
    float | None,
    typer.Option(
        help="Peak learning rate. Default 0.1 per 256 images (sgd), 1e-3 (adamw).",
        rich_help_panel=OPTIMISER,
    ),
]
WeightDecay = Annotated[
    float | None, typer.Option(help="Default 1e-4 (sgd), 0.05 (adamw).", rich_help_panel=OPTIMISER)
]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Pixels the student sees. Default: what the teacher saw.", rich_help_panel=DATA),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Only the first N images, as in kdcache build --limit.", rich_help_panel=DATA),
]
AllowRenderDrift = Annotated[
    bool,
    typer.Option(
        "--allow-render-drift",
        help="Train although this machine renders other pictures.",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=MACHINE)]
