"""``kdcache merge`` and ``kdcache extend``."""

from __future__ import annotations

import typer

from cache_builder.console.ending import reported
from cache_builder.console.lazy import STYLE
from cache_builder.console.options import takes_settings
from cache_builder.exchange.settings import ExtendSettings, MergeSettings

_MERGE_EXAMPLES = """
**Example**: a data set of 1,281,167 samples on two machines

`kdcache build --teacher vit_l --data imagefolder:/data/train --rows 0:638976 --out a.zarr` on the first; when
the calibration is done, copy `a.zarr` as it is to the second as `begun.zarr`, and there

`kdcache build --teacher vit_l --data imagefolder:/data/train --rows 638976: --like begun.zarr --out b.zarr`

`kdcache merge a.zarr b.zarr --out vit_l.zarr` gives what one build gives: the rows keep their numbers, by
which views are drawn. Caches of different data sets cannot be joined, because then they would not. The same
command continues a merge that was interrupted.
"""
_EXTEND_EXAMPLES = """
**Examples**

`kdcache extend vit_l.zarr --views 16` where it was built

`kdcache extend vit_l.zarr --views 16 --data imagefolder:/mnt/train --weights my_vit.safetensors` elsewhere

The teacher's weights, the sample ids, some rendered pictures and the digests of the samples must be those of
the cache. What is stored stays, byte for byte, and so do basis and codec. The extended cache is made beside
the old one (`.vit_l.zarr.extending`) and takes its place when it is whole, with a cache_id of its own. The
same command continues one that was interrupted.
"""

commands = typer.Typer(**STYLE)


@commands.command(epilog=_MERGE_EXAMPLES)
@takes_settings(reported)
def merge(settings: MergeSettings) -> None:
    """Join the parts of a cache that were built apart."""
    from cache_builder.exchange.merge import run_merge

    run_merge(settings)


@commands.command(epilog=_EXTEND_EXAMPLES)
@takes_settings(reported)
def extend(settings: ExtendSettings) -> None:
    """Add views to a finished cache."""
    from cache_builder.build.preflight import check_cache, check_reopening

    check_cache(settings.cache)
    check_reopening(settings.data, settings.teacher, settings.weights)
    from cache_builder.exchange.extend import run_extend

    run_extend(settings)
