"""What ``kdcache verify`` can be asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cache_builder.build.settings import HIDDEN, PRECISION, Reopening
from cache_builder.console.names import DATA_KINDS
from cache_builder.console.options import Option


class VerifySettings(Reopening):
    """Settings of ``kdcache verify``; each field is the flag of the same name."""

    cache: Annotated[str, Option(is_argument=True)]
    """Path or URL of a store."""
    data: str | None = Field(
        default=None,
        description=f"Data set that the cache was built from: {DATA_KINDS}. Default: not compared.",
    )
    precision: Annotated[str | None, PRECISION] = None
    """Arithmetic of the teacher: auto, fp32, bf16 or fp16. Default: the cache's."""
    workers: Annotated[int | None, HIDDEN] = 0
    """Loader processes: the few samples are read in this one."""
    samples: int = Field(default=256, ge=0)
    """Random samples to compare with data set and teacher; 0 for all."""
    no_teacher: bool = False
    """Do not run the teacher."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of random samples."""
    repair: bool = False
    """First make a lost or damaged index of the commits anew, from the commits of the tiles. Damaged tiles
    are written anew by kdcache build --repair."""
    as_json: Annotated[bool, Option(flag="--json")] = False
    """Print one machine-readable JSON object."""
