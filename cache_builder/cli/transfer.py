"""The command lines of ``kdcache export``, ``import``, ``merge`` and ``extend``."""

from __future__ import annotations

from typing import Annotated

import typer

from cache_builder.console.ending import reported
from cache_builder.console.names import DATA_KINDS

_EXPORT_EPILOG = """
**Examples**

`kdcache export vit_l.zarr --format parquet --out vit_l.parquet` then `pandas.read_parquet("vit_l.parquet")`

`kdcache export vit_l.zarr --format arrow --out top1.arrow --view 0 --rows 0:10000 --top 1`

`kdcache export small.zarr --format npz --out small.npz --dense` then `numpy.load("small.npz")["logits"]`

Columns: sample_id, view, label, top_ids, top_logits (largest first), lse (log-sum-exp of all logits at
temperature 1, so that exp(logit - lse) is the probability), with `--dense` also logits: all of them, decoded.
A sample that could not be read has nulls. Views follow each other, rows within a view.
"""


def export(
    cache: Annotated[str, typer.Argument(help="Path or URL of a finished store.")],
    form: Annotated[str, typer.Option("--format", help="parquet, arrow (IPC, or Feather) or npz (small).")],
    out: Annotated[str, typer.Option(help="File to write; it appears when it is whole.")],
    view: Annotated[list[int] | None, typer.Option(help="Only this view; may be repeated.")] = None,
    rows: Annotated[str | None, typer.Option(help="Only these rows, START:STOP.")] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Classes in the lists. Default: those stored one by one.")
    ] = None,
    dense: Annotated[bool, typer.Option("--dense", help="Also all logits, decoded, as float32.")] = False,
    half: Annotated[bool, typer.Option("--half", help="These as float16.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write the records of a cache as a data frame or as arrays."""
    with reported():
        from cache_builder.build.preflight import check_cache

        check_cache(cache)
        from cache_builder.interchange.export import ExportSettings, run_export

        views = tuple(view or ())
        run_export(ExportSettings(cache, out, form, views, rows, top, dense, half, force))  # type: ignore[arg-type]


_IMPORT_EPILOG = """
**Examples**

`kdcache import logits.npy --format dense --data imagefolder:/data/train --order torchvision --recipe plain
--input-size 224 --out teacher.zarr` ([N, C], the rows a PyTorch script got from torchvision's
ImageFolder, one centre crop of each, EXIF orientation ignored as there: students can be trained from it)

`kdcache import logits/ --format tinyvit --classes 21841 --out tinyvit.zarr` (a view for each epoch)

`kdcache import FKD_soft_labels/ --format fkd --classes 1000 --data imagefolder:/data/train --out fkd.zarr`

`kdcache import top5.parquet --format topk-parquet --classes 1000 --out top5.zarr` (columns sample_id, top_ids
and probs, logprobs, or logits with lse; optional view and label: what `kdcache export` writes)

Rows without ids need an order. `torchvision`: as torchvision's ImageFolder goes through the class folders.
`path`: as kdcache does, by the bytes of the whole path, or by the rows of the table, shard or data set.
`file:LIST`: a text file with the path or id of each row, one a line (paths may lie below another folder; a
.json file is a list of strings). Where torchvision and path are one order, none need be said. Where there are
labels, the accuracy of what was imported is told, and of each order when it is no better than chance.

Without `--recipe` nobody knows what pictures the teacher saw. Such a cache can be looked at, exported and
served, and kdtrain refuses it. A recipe with random views is true only of views that kdcache drew (`--seed`).
What the dump does not tell is printed and kept in the manifest's environment.
"""


def import_(
    source: Annotated[str, typer.Argument(help="File or folder of the dump.")],
    form: Annotated[str, typer.Option("--format", help="dense (.npy, .pt), tinyvit, fkd or topk-parquet.")],
    out: Annotated[str, typer.Option(help="Folder of the cache, usually NAME.zarr.")],
    classes: Annotated[int | None, typer.Option(min=2, help="C, where the dump does not tell.")] = None,
    values: Annotated[
        str | None, typer.Option(help="What a dense dump holds: logits (default), logprobs or probs.")
    ] = None,
    ids: Annotated[
        str | None, typer.Option(help="Text file (or .json list), the sample id of each row of a dense dump.")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="ORDER",
            help="Of rows without ids: torchvision (its ImageFolder's), path (kdcache's own), or file:LIST "
            "(a path or id a line).",
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Text or .npy file, the label of each row of a dense dump.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=f"The data set whose samples these are: {DATA_KINDS}.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="How the views were drawn, as for build. Default: nobody knows.")
    ] = None,
    decoding: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2,
            help="How picture files became pixels, as for build. Default: 1, EXIF orientation "
            "ignored, with --order torchvision, as it does; else 2.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="With which kdcache drew the views.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Name of the teacher, for people.")] = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels of what the teacher saw.")
    ] = None,
    interpolation: Annotated[str, typer.Option(help="How it was resized there.")] = "bilinear",
    bytes_per_view: Annotated[
        float | None, typer.Option(min=1, help="Most bytes a record of a dense dump should take.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name on a server. Default: from --out.")] = None,
) -> None:
    """Turn logits that another program saved into a cache, and say what is not known about them."""
    with reported():
        from pathlib import Path

        from cache_builder.interchange.importing import ImportSettings, run_import
        from cache_builder.interchange.sources import DumpRequest, checked_values

        ids_file, labels_file = (Path(text) if text else None for text in (ids, labels))
        request = DumpRequest(Path(source), classes, checked_values(values), ids_file, labels_file)
        run_import(
            ImportSettings(
                request,
                form,
                out,
                data=data,
                recipe=recipe,
                seed=seed,
                teacher=teacher,
                input_size=input_size,
                interpolation=interpolation,
                bytes_per_view=bytes_per_view,
                name=name,
                order=order,
                decoding=decoding,  # type: ignore[arg-type]  # 1 or 2, by its limits
            )
        )


_MERGE_EPILOG = """
**Example**: a data set of 1,281,167 samples on two machines

`kdcache build --teacher vit_l --data imagefolder:/data/train --rows 0:638976 --out a.zarr` on the first; when
the calibration is done, copy `a.zarr` as it is to the second as `begun.zarr`, and there

`kdcache build --teacher vit_l --data imagefolder:/data/train --rows 638976: --like begun.zarr --out b.zarr`

`kdcache merge a.zarr b.zarr --out vit_l.zarr` gives what one build gives: the rows keep their numbers, by
which views are drawn. Caches of different data sets cannot be joined, because then they would not. The same
command continues a merge that was interrupted.
"""


def merge(
    parts: Annotated[list[str], typer.Argument(help="Parts, built with --rows.", metavar="PART...")],
    out: Annotated[str, typer.Option(help="Folder of the joined cache, usually NAME.zarr.")],
    reencode: Annotated[
        bool, typer.Option("--reencode", help="Encode parts that have another basis again with the first's.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name on a server. Default: from --out.")] = None,
) -> None:
    """Join the parts of a cache that were built apart."""
    with reported():
        from cache_builder.exchange.merge import MergeSettings, run_merge

        run_merge(MergeSettings(tuple(parts), out, reencode, name))


_EXTEND_EPILOG = """
**Examples**

`kdcache extend vit_l.zarr --views 16` where it was built

`kdcache extend vit_l.zarr --views 16 --data imagefolder:/mnt/train --weights my_vit.safetensors` elsewhere

The teacher's weights, the sample ids, some rendered pictures and the digests of the samples must be those of
the cache. What is stored stays, byte for byte, and so do basis and codec. The extended cache is made beside
the old one (`.vit_l.zarr.extending`) and takes its place when it is whole, with a cache_id of its own. The
same command continues one that was interrupted.
"""


def extend(
    cache: Annotated[str, typer.Argument(help="Folder of a finished cache.")],
    views: Annotated[int, typer.Option(min=1, help="Views of each sample that it shall have.")],
    data: Annotated[
        str | None, typer.Option(help=f"Its data set, where that has moved: {DATA_KINDS}.")
    ] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="As for build. Default: the one the manifest names.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="As for build. Default: those the manifest names.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass of the teacher.")] = 64,
    workers: Annotated[int | None, typer.Option(min=0, help="Loader processes. Default by cores.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Add views to a finished cache."""
    with reported():
        from cache_builder.build.preflight import check_cache, check_reopening

        check_cache(cache)
        check_reopening(data, tuple(teacher or ()), tuple(weights or ()))
        from cache_builder.build.reopen import Reopening
        from cache_builder.exchange.extend import ExtendSettings, run_extend

        reopening = Reopening(
            data, tuple(teacher or ()), tuple(weights or ()), device, None, batch_size, workers
        )
        run_extend(ExtendSettings(cache, views, reopening))


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(epilog=_EXPORT_EPILOG)(export)
    app.command("import", epilog=_IMPORT_EPILOG)(import_)
    app.command(epilog=_MERGE_EPILOG)(merge)
    app.command(epilog=_EXTEND_EPILOG)(extend)
