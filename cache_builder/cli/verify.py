"""The command line of ``kdcache verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from cache_builder.console.ending import reported
from cache_builder.console.names import DATA_KINDS

_VERIFY_EPILOG = """
**Examples**

`kdcache verify vit_l.zarr` reads every byte: manifest, cache_id, header arrays, commits, shards, records.

`kdcache verify vit_l.zarr --data imagefolder:/data/train --weights my_vit.safetensors` also compares ids,
labels, source files and rendered pictures with the data set, and what is stored with what the teacher says
now: "faithful" tells whether the records are those of its live logits, "codec" what compression loses.

**Exit codes**: 0 all is well; 3 the store is damaged; 4 it is whole, but of another data set or teacher; 5
the build has not ended; 1 and 2 it could not be looked at. What was not checked is named, and no failure.
"""


def verify(
    cache: Annotated[str, typer.Argument(help="Path or URL of a store.")],
    data: Annotated[str | None, typer.Option(help=f"The data set it was built from: {DATA_KINDS}.")] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Random samples to compare with data set and teacher; 0 for all.")
    ] = 256,
    teacher: Annotated[
        list[str] | None, typer.Option(help="As for build. Default: the one the manifest names.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="As for build. Default: those the manifest names.")
    ] = None,
    no_teacher: Annotated[bool, typer.Option("--no-teacher", help="Do not run the teacher.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32, bf16 or fp16. Default: the cache's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass of the teacher.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Which random samples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One machine-readable object.")] = False,
) -> None:
    """Check that a cache is whole, that it is of this data set, and that it says what the teacher says."""
    with reported():
        from cache_builder.build.preflight import check_cache, check_reopening

        check_cache(cache)
        check_reopening(data, tuple(teacher or ()), tuple(weights or ()))
        from cache_builder.build.reopen import Reopening
        from cache_builder.verify.run import VerifySettings, run_verify

        reopening = Reopening(
            data, tuple(teacher or ()), tuple(weights or ()), device, precision, batch_size, workers=0
        )
        code = run_verify(VerifySettings(cache, samples, not no_teacher, seed, reopening), as_json)
    raise typer.Exit(code)


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_VERIFY_EPILOG)(verify)
