"""``kdcache build``."""

from __future__ import annotations

import time

import typer
from rich.console import Console

from cache_builder.build.settings import BuildSettings
from cache_builder.console.ending import reported
from cache_builder.console.lazy import STYLE
from cache_builder.console.options import takes_settings

_EXAMPLES = """
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

`kdcache build --engine ray --address head:6379 --data 'webdataset:s3://bucket/train-{000..146}.tar'
--teacher vit_l --out s3://bucket/vit_l.zarr`  (teachers on the GPUs of a Ray cluster, decoders on its
processors; no node needs the pictures on its disk)
`sbatch --array=0-99 --wrap "kdcache build ... --share"`  (as many processes as come build one cache; each may
die, and more may be started at any time)

The same command continues a build that was interrupted. A folder without sub-folders has no labels.
"""

commands = typer.Typer(**STYLE)


@commands.command(epilog=_EXAMPLES)
@takes_settings(reported)
def build(settings: BuildSettings) -> None:
    """Run a teacher over a data set and write its compressed logits for several views of each sample."""
    run_build(settings)


def run_build(settings: BuildSettings) -> None:
    """Build or continue a cache and print a summary."""
    from cache_builder.build.launch import Launch
    from cache_builder.build.preflight import check_build
    from cache_builder.console.progress import BuildProgress

    launch = Launch.from_environment()
    source = check_build(settings, is_first=launch.rank == 0 and not settings.share)
    from cache_builder.build.pipeline import build
    from cache_builder.cli.summary import summary

    console = Console()
    console.quiet = launch.rank > 0  # rank 0 speaks for all
    started = time.monotonic()
    with BuildProgress(console) as progress:
        result = build(settings, progress, launch, source)
    if launch.rank == 0:
        for line in summary(settings, result, time.monotonic() - started):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
