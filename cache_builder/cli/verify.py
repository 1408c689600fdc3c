"""``kdcache verify``."""

from __future__ import annotations

import typer

from cache_builder.console.ending import reported
from cache_builder.console.lazy import STYLE
from cache_builder.console.options import takes_settings
from cache_builder.verify.settings import VerifySettings

_EXAMPLES = """
**Examples**

`kdcache verify vit_l.zarr` reads every byte: manifest, cache_id, header arrays, commits, shards, records.

`kdcache verify vit_l.zarr --data imagefolder:/data/train --weights my_vit.safetensors` also compares ids,
labels, source files and rendered pictures with the data set, and what is stored with what the teacher says
now: "faithful" tells whether the records are those of its live logits, "codec" what compression loses.

`kdcache verify vit_l.zarr --repair` makes a lost or damaged index of the commits anew; other damage is mended
by `kdcache build --repair`, or by restoring the file.

**Exit codes**: 0 all is well; 3 the store is damaged; 4 it is whole, but of another data set or teacher; 5
the build has not ended; 1 and 2 it could not be looked at. What was not checked is named, and no failure.
"""

commands = typer.Typer(**STYLE)


@commands.command(epilog=_EXAMPLES)
@takes_settings(reported)
def verify(settings: VerifySettings) -> None:
    """Check that a cache is whole, that it is of this data set, and that it says what the teacher says."""
    from cache_builder.build.preflight import check_cache, check_reopening

    check_cache(settings.cache)
    check_reopening(settings.data, settings.teacher, settings.weights)
    from cache_builder.verify.repair import remake_index
    from cache_builder.verify.run import run_verify

    if settings.repair:
        typer.echo(remake_index(settings.cache), err=settings.as_json)

    code = run_verify(settings)
    raise typer.Exit(code)
