"""Everything a build can be told, as one frozen object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cache_builder.format.errors import ConfigError
from cache_builder.format.frozen import Frozen
from cache_builder.format.manifest import Decoding


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
"""One name, or several in order."""


class BuildSettings(Frozen):
    """Settings of ``kdcache build``; each field is the flag of the same name."""

    teacher: Names
    """Torchvision name or alias, ``timm:NAME`` or ``package.module:factory``; several are an ensemble."""
    data: str
    """Data set spec, e.g. ``imagefolder:/data/train``."""
    out: str
    """Folder of the cache (or an fsspec URL)."""
    views: int = Field(default=8, ge=1)
    """V, recorded augmented views per sample."""
    recipe: str | None = None
    """Recipe with parameters; None = what suits the data (see ``default_recipe``)."""
    weights: Names | None = None
    """``default``, ``random`` or a file, one for each teacher in their order; None = default for all."""
    bytes_per_view: float = Field(default=64.0, gt=0, allow_inf_nan=False)
    """The most a record should take on disk; calibration takes the most faithful setting below it."""
    codec: str | None = None
    """Name of the codec; None = every class one by one where they are few, else a sketch."""
    top_k: int | None = Field(default=None, ge=1)
    """K, classes stored one by one; None = by calibration, or all where there are few."""
    tail_rank: int | None = Field(default=None, ge=1)
    """r, coefficients of the tail sketch; None = by calibration."""
    tail_step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Step of the coefficients, in logits; None = by calibration."""
    value_step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Step of the K values, in logits; None = by calibration."""
    batch_size: int = Field(default=64, ge=1)
    """Images per teacher forward pass."""
    workers: int | None = Field(default=None, ge=0)
    """Loader processes; None = by device and cores. Never changes the result."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16."""
    compile: bool = False
    """Have ``torch.compile`` translate the teacher first."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Key of the views, and of random weights."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first N samples."""
    rows: str | None = None
    """Only the tiles of these rows, ``START:STOP``; the others are built elsewhere. None = all."""
    like: str | None = None
    """A part of the same cache whose basis and probe a new part takes over."""
    input_size: int | None = Field(default=None, ge=1)
    """Side in pixels; None = the weights' own."""
    mean: tuple[float, ...] | None = None
    """Normalisation mean; None = the weights' own."""
    std: tuple[float, ...] | None = None
    """Normalisation standard deviation; None = the weights' own."""
    name: str | None = None
    """Name of the cache; None = the last part of ``out`` without suffix."""
    tile_rows: int | None = Field(default=None, ge=1)
    """Rows of a tile, the unit that a killed build loses; None = 4096, less for small data sets."""
    on_error: Literal["fail", "skip"] = "fail"
    """What an unreadable image does: stop the build, or mark its row invalid."""
    decoding: Decoding | None = None
    """Rule by which picture files become pixels; None = that of the cache that is there, else the newest."""
    class_map: str | None = None
    """File that says which of the teacher's classes each class of the data is; None = by their names."""
    allow_unrepeatable: bool = False
    """Store a teacher that answers differently to the same picture."""
    repair: bool = False
    """Read every byte of the cache, and write the tiles that are damaged anew."""
    ignore_labels: bool = False
    """Store no labels: for a teacher whose classes are not the data set's."""

    @property
    def members(self) -> list[tuple[str, str]]:
        """Each teacher with its weights. Raises :class:`ConfigError` where their numbers differ."""
        weights = self.weights or ("default",) * len(self.teacher)
        if len(weights) != len(self.teacher):
            raise ConfigError(
                f"--weights is given {len(weights)} time(s) for {len(self.teacher)} teacher(s): give it once "
                "for each --teacher, in the same order (default, random or a FILE)"
            )
        return list(zip(self.teacher, weights, strict=True))

    @property
    def cache_name(self) -> str:
        """``name``, or the last part of ``out``."""
        return self.name or Path(self.out.rstrip("/")).name.removesuffix(".zarr")
