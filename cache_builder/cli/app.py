"""The ``kdcache`` command. Each command is a sentence: parse, call one function, print."""

from __future__ import annotations

from typing import Annotated

import typer

from cache_builder.cli import transfer as transfer_commands
from cache_builder.cli import verify as verify_commands
from cache_builder.console.ending import reported
from cache_builder.console.names import DATA_KINDS
from cache_builder.console.version import Version

app = typer.Typer(
    name="kdcache",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run the teacher once, keep what it said, train as many students as you like.",
    epilog="A first look, two minutes, nothing needed: `kdcache demo`",
)


@app.callback()
def kdcache(version: Version = False) -> None:
    """What all commands have in common."""


_BUILD_EPILOG = """
**Examples**

`kdcache build --teacher vit_l --data imagefolder:/data/train --out /data/vit_l.zarr`

`kdcache build --teacher resnet50 --weights my.safetensors --data cifar100:/data --out r50.zarr --views 16`

`kdcache build --teacher timm:convnext_base.fb_in1k --teacher vit_b --data imagefolder:/d --out mean.zarr`

`kdcache build --teacher my.models:teacher --data digits:train --out t.zarr --recipe pad-crop-flip:flip=0`

`kdcache build --teacher vit_l --data imagefolder:/d --out v.zarr --recipe
randaugment:magnitude=9,num_ops=2,mix.mixup_alpha=0.2,mix.cutmix_alpha=1`  (RandAugment, then mixup or CutMix)

**Whose classes**: where teacher and data both name their classes, labels are matched by name.

`kdcache build --teacher resnet50 --data imagefolder:/data/imagenette2/train --out nette.zarr`  (folders of
some of ImageNet's classes, called by WordNet id such as n01440764 or by name such as tench; the cache keeps
all 1,000 logits)

`kdcache build --teacher resnet50 --data imagefolder:/data/parts --out parts.zarr --ignore-labels`  (folders
such as good and bad, which no teacher knows; then `kdtrain --cache parts.zarr --data imagefolder:/data/parts
--student resnet18 --classes both --out run`)

`kdcache build --teacher my.models:teacher --data 'imagefolder:/d?classes=order.txt' --out d.zarr`  (order.txt
has the teacher's classes in its order, one name a line; every kind of data takes it; `?classes=natural` is
the order that puts 2 before 10)

`kdcache build --teacher resnet50 --data imagefolder:/d --class-map map.txt --out d.zarr`  (map.txt has lines
such as `my cats = tabby`)

A recipe in TOML: `base = "rrc-flip"`, `strong_views = "odd"` (weak and strong views in turn, as mlkd and crld
take them), tables `[randaugment] [trivialaugment] [jitter] [erase] [mix]`; the cache keeps the whole of it.

`torchrun --nproc-per-node 8 -m kdcache build ...`  (eight processes, a GPU each, build one cache)

The same command continues a build that was interrupted. A folder without sub-folders has no labels.
"""


@app.command(epilog=_BUILD_EPILOG)
def build(
    teacher: Annotated[
        list[str],
        typer.Option(
            help="vit_l, vit_b, resnet50, any torchvision classifier, timm:NAME, or package.module:factory. "
            "Given several times, an ensemble: the mean of the softmax outputs is stored, as its log. Its "
            "members see the same picture, each normalised its own way, and must have the same classes."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(help=f"{DATA_KINDS}."),
    ],
    out: Annotated[
        str,
        typer.Option(help="Folder of the cache, usually NAME.zarr, or a URL such as s3://bucket/NAME.zarr."),
    ],
    views: Annotated[int, typer.Option(min=1, help="Recorded augmented views of each sample.")] = 8,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="rrc-flip, pad-crop-flip or plain, with parameters as in rrc-flip:min_area=0.25; with "
            "strong views randaugment, trivialaugment, color-jitter, rrc-erase, mixup, cutmix or augment, as "
            "in mixup:alpha=0.2,base=pad-crop-flip,erase.probability=0.25; or a FILE.toml. View 0 is always "
            "crop and flip only. Default: what is usual for the data."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="default (published), random, or a FILE or folder: safetensors or a state dict, no code in "
            "it is run. Of raw and averaged (EMA) weights in a file the averaged ones are taken; FILE#ENTRY "
            "takes another entry, FILE#by-order the tensors by their order, whatever they are called. "
            "Of an ensemble: once for each teacher, in the same order. Default: default."
        ),
    ] = None,
    bytes_per_view: Annotated[
        float,
        typer.Option(
            min=1,
            help="The most a record should take on disk. Calibration on some teacher outputs takes the most "
            "faithful setting below it; the table is shown by inspect.",
        ),
    ] = 64.0,
    codec: Annotated[
        str | None,
        typer.Option(
            help="How logits become records: topk-tail (every class one by one) or class-sketch (some "
            "classes one by one, the others rebuilt from a few coefficients). Default: topk-tail for up to "
            "32 classes."
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Classes stored one by one. Default: by calibration; all of up to 32."),
    ] = None,
    tail_rank: Annotated[
        int | None,
        typer.Option(min=1, help="Coefficients that describe all other classes. Default: by calibration."),
    ] = None,
    tail_step: Annotated[
        float | None, typer.Option(help="Their quantisation step, in logits. Default: by calibration.")
    ] = None,
    value_step: Annotated[
        float | None,
        typer.Option(help="Quantisation step of the classes stored one by one. Default: by calibration."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass of the teacher.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Loader processes; never changes the result. Default by cores.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Have torch.compile translate the teacher first: a minute or more at the start, faster "
            "batches after. Needs a C++ compiler; the cache may be continued without.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the views (and of random weights).")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N samples.")] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Build only rows START:STOP of the data set, a part that kdcache merge joins to others."
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="A part that was begun: take over its basis, so that the parts fit together."),
    ] = None,
    input_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side in pixels, also of all of an ensemble. Default: the weights' own."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Normalisation, as 0.485,0.456,0.406. Default: the weights' own.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    name: Annotated[str | None, typer.Option(help="Name on a server. Default: from --out.")] = None,
    tile_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Rows per tile, the most a killed build loses. Default up to 4096."),
    ] = None,
    on_error: Annotated[
        str, typer.Option(help="An unreadable image: fail, or skip (its row is invalid).")
    ] = "fail",
    decoding: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2,
            help="How picture files become pixels, for every kind of data. 2 (default): turned upright by "
            "their EXIF orientation; of 16 bits the upper 8, floats of 0 to 1 times 255; numbers of which "
            "nothing says what is white are refused; alpha is dropped. 1: EXIF orientation ignored, as in "
            "earlier releases and torchvision's ImageFolder. The cache keeps it and kdtrain decodes by it.",
        ),
    ] = None,
    class_map: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Which of the teacher's classes each class of the data is, where their names differ: lines "
            "such as `my folder = tench` or `my folder = 0`, CSV or TSV with these two columns, or JSON such "
            'as `{"my folder": "tench"}`.',
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            help="Read every byte of a cache that is there, and write the tiles that are damaged anew. What "
            "is whole stays."
        ),
    ] = False,
    allow_unrepeatable: Annotated[
        bool,
        typer.Option(
            "--allow-unrepeatable",
            help="Store a teacher that gives the same picture different answers. Without it such a teacher "
            "is refused before anything is written.",
        ),
    ] = False,
    ignore_labels: Annotated[
        bool,
        typer.Option(
            "--ignore-labels",
            help="The teacher's classes are not the data set's: store its logits without labels. The names "
            "of the data's classes are kept, and kdtrain --classes both learns them with a head of its own.",
        ),
    ] = False,
) -> None:
    """Run a teacher over a data set and write its compressed logits for several views of each sample."""
    from cache_builder.cli.commands import run_build

    with reported():
        run_build(
            {
                "teacher": teacher,
                "data": data,
                "out": out,
                "views": views,
                "recipe": recipe,
                "weights": weights,
                "bytes_per_view": bytes_per_view,
                "codec": codec,
                "top_k": top_k,
                "tail_rank": tail_rank,
                "tail_step": tail_step,
                "value_step": value_step,
                "batch_size": batch_size,
                "workers": workers,
                "device": device,
                "precision": precision,
                "compile": compile,
                "seed": seed,
                "limit": limit,
                "rows": rows,
                "like": like,
                "input_size": input_size,
                "mean": numbers("--mean", mean),
                "std": numbers("--std", std),
                "name": name,
                "tile_rows": tile_rows,
                "on_error": on_error,
                "decoding": decoding,
                "class_map": class_map,
                "repair": repair,
                "allow_unrepeatable": allow_unrepeatable,
                "ignore_labels": ignore_labels,
            }
        )


@app.command()
def serve(
    caches: Annotated[
        list[str], typer.Argument(help="Caches to serve: PATH or NAME=PATH.", metavar="CACHE...")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Server processes; they share the decoded pages.")] = 1,
) -> None:
    """Serve finished caches over HTTP, by sample id.

    Example: `kdcache serve /data/vit_l.zarr --port 8000`, then
    `curl http://127.0.0.1:8000/v1/caches/vit_l/samples/n01440764/a.JPEG`
    """
    from cache_builder.cli.commands import run_serve

    with reported():
        run_serve(caches, host, port, workers)


@app.command()
def inspect(
    cache: Annotated[str, typer.Argument(help="Path or URL of a store.")],
    sample: Annotated[str | None, typer.Option(help="Sample id to decode. Default: the first.")] = None,
    view: Annotated[int, typer.Option(min=0, help="View of that sample.")] = 0,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="PNG", help="Write a picture of the table that the record's settings were chosen from."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One machine-readable object.")] = False,
    show: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Write a picture of this sample in --view: the image and its crop, the view as the teacher "
            "saw it, what was drawn, and the teacher's most likely classes.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="With --show: where the images are. Default: as when it was built.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="With --show: the PNG file. Default: viewV-rowR.png.")
    ] = None,
) -> None:
    """Show what a cache holds: manifest, size, completeness, the teacher's accuracy, one sample.

    Examples: `kdcache inspect vit_l.zarr`,
    `kdcache inspect vit_l.zarr --show n01440764/a.JPEG --view 1 --out a.png`,
    `kdcache inspect vit_l.zarr --calibration bytes.png`
    """
    from cache_builder.cli.commands import run_inspect, run_show

    with reported():
        if show is not None:
            run_show(cache, show, view, data, out)
        elif data is not None or out is not None:
            raise typer.BadParameter("--data and --out are for --show ID")
        else:
            run_inspect(cache, sample, view, as_json, calibration)


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Folder for everything the demo makes.")] = "demo-out",
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Students per method.")] = 3,
) -> None:
    """Teacher, cache, server and students on real handwritten digits, in two minutes on two cores.

    Trains the same student with hard labels and from the served teacher logits, and prints which was better.
    """
    from cache_builder.demo.run import run_demo

    with reported():
        run_demo(out, seeds)


def numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    """``0.5,0.5,0.5`` as floats."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{flag} {text!r}: expected numbers like 0.485,0.456,0.406") from None


for add_to in (verify_commands.add_to, transfer_commands.add_to):
    add_to(app)


def main() -> None:
    """Entry point of the ``kdcache`` script."""
    app()
