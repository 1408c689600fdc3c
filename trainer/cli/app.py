"""The ``kdtrain`` command. Each command is a sentence: parse, call one function, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cache_builder.console.names import DATA_KINDS
from cache_builder.console.version import Version
from trainer.cli.compare import COMPARE_EXAMPLES, compare
from trainer.cli.ending import reported
from trainer.cli.options import (
    DATA,
    MACHINE,
    OPTIMISER,
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
from trainer.comparison.children import end_with_parent

_EXAMPLES = """
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


app = typer.Typer(
    name="kdtrain",
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True, epilog=_EXAMPLES)
def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(help=f"Training images: {DATA_KINDS}.", rich_help_panel=DATA),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", rich_help_panel=MACHINE)] = None,
    cache: Annotated[
        list[str] | None,
        typer.Option(
            help="URL (http://host:8000/v1/caches/NAME) or path of the teacher's cache. Several teachers: "
            "once for each, built from the same data with the same views.",
            rich_help_panel=DATA,
        ),
    ] = None,
    val_data: Annotated[
        str | None, typer.Option(help="Held-out images, evaluated on centre crops.", rich_help_panel=DATA)
    ] = None,
    student: Student = "resnet18",
    loss: Annotated[
        str,
        typer.Option(
            help="A method's name (its published objective), a weighted sum, or a .json or .toml file; "
            "see kdtrain losses.",
            rich_help_panel=STUDENT,
        ),
    ] = "kd",
    aux_head: Annotated[
        str | None,
        typer.Option(
            help="A second classifier on the same features, for terms with head=aux: linear, mlp, "
            "mlp(hidden=200, dropout=0.1), linear(mix=0.5, temperature=1); mix is its share in the "
            "student's answer. Default: what the method has (dho, binary_kl).",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="teacher|data|both",
            help="Whose classes the student has. `teacher`: all of the teacher's; labels of the data are "
            "found among them by name. `data`: those of the data alone, which are some of the teacher's; of "
            "its logits only these are looked at. `both`: the data's classes are other ones; the student "
            "learns its labels with its own head and the teacher's logits with a second head, and is "
            "evaluated on the labels. Default: both where no label of the data is a class of the teacher and "
            "a loss learns labels, else teacher.",
        ),
    ] = None,
    published: Published = "auto",
    epochs: Epochs = 30,
    batch_size: BatchSize = 128,
    accumulation: Annotated[
        int, typer.Option(min=1, help="Micro-batches of one step.", rich_help_panel=OPTIMISER)
    ] = 1,
    optimizer: Optimizer = "sgd",
    lr: Lr = None,
    momentum: Annotated[float, typer.Option(help="Of sgd.", rich_help_panel=OPTIMISER)] = 0.9,
    weight_decay: WeightDecay = None,
    decay_all: Annotated[
        bool, typer.Option("--decay-all", help="Also decay norms and biases.", rich_help_panel=OPTIMISER)
    ] = False,
    warmup_epochs: Annotated[
        float | None,
        typer.Option(
            help="Linear warm-up of the learning rate. Default epochs / 20.", rich_help_panel=OPTIMISER
        ),
    ] = None,
    clip_grad: Annotated[
        float | None, typer.Option(help="Largest norm of the gradient.", rich_help_panel=OPTIMISER)
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Of cross-entropy terms.", rich_help_panel=STUDENT)
    ] = 0.0,
    image_size: ImageSize = None,
    eval_crop: Annotated[
        float | None,
        typer.Option(
            help="Centre crop of held-out images, as a part of the shorter side. "
            "Default 1 up to 64 pixels, else 0.875.",
            rich_help_panel=DATA,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Without a cache: pad-crop-flip, rrc-flip or plain, as in rrc-flip:flip=0, or with strong "
            "views randaugment, trivialaugment, color-jitter or rrc-erase; see kdcache build --help.",
            rich_help_panel=DATA,
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            min=1, help="Without a cache: different views. Default one per epoch.", rich_help_panel=DATA
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Normalisation, as 0.485,0.456,0.406. Default: the teacher's.", rich_help_panel=DATA
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Likewise.", rich_help_panel=DATA)] = None,
    limit: Limit = None,
    labelled: Annotated[
        float | None,
        typer.Option(
            help="Use the labels of this share of the images only, chosen by the seed, as in 0.1: for "
            "semi-supervised training, e.g. --loss dho.",
            rich_help_panel=DATA,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and order.", rich_help_panel=OPTIMISER)] = 0,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or fp16.", rich_help_panel=MACHINE)
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Loader processes; never changes the result. Default by cores.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    fetch: Annotated[
        str,
        typer.Option(
            help="Records by batch, or a whole view once an epoch: batch, view, auto (by size).",
            rich_help_panel=MACHINE,
        ),
    ] = "auto",
    patience_s: Annotated[
        float, typer.Option(min=0, help="Seconds a server may be away.", rich_help_panel=MACHINE)
    ] = 120.0,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            help="Between checkpoints inside an epoch; each epoch ends with one.", rich_help_panel=MACHINE
        ),
    ] = 10.0,
    keep_checkpoints: Annotated[
        int,
        typer.Option(
            min=1,
            help="How many of the last checkpoints are kept. One that was damaged on the disk is passed over "
            "by --resume, which then goes on from the one before.",
            rich_help_panel=MACHINE,
        ),
    ] = 3,
    allow_render_drift: AllowRenderDrift = False,
    tensorboard: Annotated[
        bool, typer.Option(help="Write TensorBoard events.", rich_help_panel=MACHINE)
    ] = True,
    version: Version = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out; everything else must be the same.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
) -> None:
    """Train a student from a cache of teacher logits; the teacher itself never runs.

    Renders the views the teacher saw, fetches its answers ahead of need, evaluates after every epoch, and
    survives kills and server restarts.
    """
    if context.invoked_subcommand is not None:
        return
    settings = {name: value for name, value in context.params.items() if name != "resume"}
    from trainer.cli.commands import run_train

    with reported():
        run_train(settings, resume)


@app.command("eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    data: Annotated[
        str | None, typer.Option(help="What to evaluate on. Default: the run's own held-out data.")
    ] = None,
    weights: Annotated[str, typer.Option(help="best, last or a FILE.")] = "best",
    cache: Annotated[
        str | None, typer.Option(help="Compare with the teacher of this cache, on its own data set.")
    ] = None,
    view: Annotated[int, typer.Option(min=0, help="The cache's view to compare in.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --cache: only the first N images of --data.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Evaluate a run: top-1, top-5 and NLL on labelled images, or agreement with its teacher.

    Examples: `kdtrain eval runs/a`, `kdtrain eval runs/a --data imagefolder:/data/test --weights last`,
    `kdtrain eval runs/a --cache vit_l.zarr --data imagefolder:/data/train`
    """
    from trainer.cli.commands import run_eval

    with reported():
        run_eval(run, data, weights, cache, view, limit, device, as_json)


@app.command()
def losses(
    name: Annotated[str | None, typer.Argument(help="A loss, for its formula, fields and sources.")] = None,
    selftest: Annotated[
        bool,
        typer.Option(
            "--selftest",
            help="Value and gradient of every loss on a fixed batch, against an independent evaluation.",
        ),
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The table as trainer/losses/README.md has it.")
    ] = False,
) -> None:
    """List the losses, explain one, or check that this machine computes them right.

    Examples: `kdtrain losses`, `kdtrain losses dkd`, `kdtrain losses --selftest`
    """
    from trainer.cli.commands import run_losses

    with reported():
        run_losses(name, selftest=selftest, markdown=markdown)


app.command("compare", epilog=COMPARE_EXAMPLES)(compare)


def prepare() -> None:
    """What this process needs before a command runs in it."""
    # Factories given as package.module:factory may lie in the working directory.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    end_with_parent()


def main() -> None:
    """Entry point of ``python -m trainer``, and of ``kdtrain`` by way of :mod:`kdcache`."""
    prepare()
    app()
