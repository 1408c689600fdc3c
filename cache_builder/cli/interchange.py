"""``kdcache export`` and ``kdcache import``."""

from __future__ import annotations

import typer

from cache_builder.console.ending import reported
from cache_builder.console.lazy import STYLE
from cache_builder.console.options import takes_settings
from cache_builder.interchange.settings import ExportSettings, ImportSettings

_EXPORT_EXAMPLES = """
**Examples**

`kdcache export vit_l.zarr --format parquet --out vit_l.parquet` then `pandas.read_parquet("vit_l.parquet")`

`kdcache export vit_l.zarr --format arrow --out top1.arrow --view 0 --rows 0:10000 --top 1`

`kdcache export small.zarr --format npz --out small.npz --dense` then `numpy.load("small.npz")["logits"]`

Columns: sample_id, view, label, top_ids, top_logits (largest first), lse (log-sum-exp of all logits at
temperature 1, so that exp(logit - lse) is the probability), with `--dense` also logits: all of them, decoded.
A sample that could not be read has nulls. Views follow each other, rows within a view.
"""
_IMPORT_EXAMPLES = """
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

commands = typer.Typer(**STYLE)


@commands.command(epilog=_EXPORT_EXAMPLES)
@takes_settings(reported)
def export(settings: ExportSettings) -> None:
    """Write the records of a cache as a data frame or as arrays."""
    from cache_builder.build.preflight import check_cache

    check_cache(settings.cache)
    from cache_builder.interchange.export import run_export

    run_export(settings)


@commands.command("import", epilog=_IMPORT_EXAMPLES)
@takes_settings(reported)
def import_(settings: ImportSettings) -> None:
    """Turn logits that another program saved into a cache, and say what is not known about them."""
    from cache_builder.interchange.importing import run_import

    run_import(settings)
