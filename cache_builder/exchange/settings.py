"""What ``kdcache merge`` and ``kdcache extend`` can be asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cache_builder.build.settings import Reopening
from cache_builder.console.options import Names, Option, Settings


class MergeSettings(Settings):
    """Settings of ``kdcache merge``; each field is the flag of the same name."""

    parts: Annotated[Names, Option(is_argument=True, metavar="PART...")]
    """Parts of one cache, built with --rows."""
    out: str
    """Folder of the joined cache, usually NAME.zarr."""
    reencode: bool = False
    """Encode parts that have another basis again with the first's."""
    name: str | None = None
    """Name of the cache on a server. Default: from --out."""


class ExtendSettings(Reopening):
    """Settings of ``kdcache extend``; each field is the flag of the same name."""

    cache: Annotated[str, Option(is_argument=True)]
    """Folder or URL of a finished cache."""
    views: int = Field(ge=1)
    """Views of each sample that it shall have."""
    out: str | None = None
    """Folder or URL of the extended cache, and CACHE stays as it is: what an object store needs, which cannot
    exchange two caches in one step. Default: it takes the place of CACHE."""
    workers: int | None = Field(default=None, ge=0)
    """Loader processes; their number never changes the result. Default: by device and cores."""
