"""What ``kdcache export`` and ``kdcache import`` can be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cache_builder.console.names import DATA_KINDS
from cache_builder.console.options import Option, Settings
from cache_builder.format.frozen import Decoding
from cache_builder.format.locations import local_path

Form = Literal["parquet", "arrow", "npz"]
Values = Literal["logits", "logprobs", "probs"]


class ExportSettings(Settings):
    """Settings of ``kdcache export``; each field is the flag of the same name."""

    cache: Annotated[str, Option(is_argument=True)]
    """Path or URL of a finished store."""
    form: Annotated[Form, Option(flag="--format")]
    """Kind of file: parquet, arrow (IPC, or Feather) or npz (small)."""
    out: str
    """File to write, or its URL on an object store; it appears when it is whole."""
    views: Annotated[tuple[int, ...], Option(flag="--view")] = ()
    """Only this view is written; may be repeated. Default: all."""
    rows: str | None = None
    """Only these rows, START:STOP. Default: all."""
    top: int | None = Field(default=None, ge=1)
    """Classes in the lists. Default: those stored one by one."""
    dense: bool = False
    """Also write all logits, decoded, as float32."""
    half: bool = False
    """Write the decoded logits as float16."""
    force: bool = False
    """Overwrite a file that is there."""


class DumpRequest(Settings):
    """What the user says about a dump of another program."""

    source: Annotated[Path, Option(is_argument=True), BeforeValidator(local_path)]
    """File or folder of the dump."""
    classes: int | None = Field(default=None, ge=2)
    """Number of classes (C), where the dump does not tell."""
    values: Values | None = None
    """What a dense dump holds. Default: logits, unless they look like something else."""
    ids: Path | None = None
    """Text file (or .json list) with the sample id of each row of a dense dump."""
    labels: Path | None = None
    """Text or .npy file with the label of each row of a dense dump."""


class ImportSettings(DumpRequest):
    """Settings of ``kdcache import``; each field is the flag of the same name."""

    form: Annotated[str, Option(flag="--format")]
    """Format of the dump: dense (.npy, .pt), tinyvit, fkd or topk-parquet."""
    out: str
    """Folder of the cache, usually NAME.zarr."""
    order: Annotated[str | None, Option(metavar="ORDER")] = None
    """Order of rows without ids: torchvision (its ImageFolder's), path (kdcache's own), or file:LIST (a path
    or id a line)."""
    data: str | None = Field(
        default=None, description=f"Data set whose samples these are: {DATA_KINDS}. Default: not looked at."
    )
    recipe: str | None = None
    """How the views were drawn, as for build. Default: nobody knows."""
    decoding: Decoding | None = None
    """How picture files became pixels, as for build. Default: 1, EXIF orientation ignored, with --order
    torchvision, as it does; else 2."""
    seed: int | None = Field(default=None, ge=0)
    """Seed with which kdcache drew the views."""
    teacher: str | None = None
    """Name of the teacher, for people to read."""
    input_size: int | None = Field(default=None, ge=1)
    """Side in pixels of what the teacher saw."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """How pictures were resized for the teacher: nearest, bilinear or bicubic."""
    bytes_per_view: float | None = Field(default=None, ge=1)
    """The most bytes that a record of a dense dump should take."""
    name: str | None = None
    """Name of the cache on a server. Default: from --out."""
