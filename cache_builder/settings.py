"""Everything a build can be told, as one frozen object."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from cache_builder.format.manifest import Frozen


class BuildSettings(Frozen):
    """Settings of ``kdcache build``; each field is the flag of the same name."""

    teacher: str
    """Torchvision name or alias, or ``package.module:factory``."""
    data: str
    """Data set spec, e.g. ``imagefolder:/data/train``."""
    out: str
    """Folder of the cache (or an fsspec URL)."""
    views: int = Field(default=8, ge=1)
    """V, recorded augmented views per sample."""
    recipe: str | None = None
    """Recipe with parameters; None = what suits the data (see ``default_recipe``)."""
    weights: str = "default"
    """``default``, ``random`` or a file."""
    top_k: int | None = Field(default=None, ge=1)
    """K, classes stored one by one; None = 5, or all where there are few."""
    tail_rank: int | None = Field(default=None, ge=1)
    """r, coefficients of the tail sketch; None = 64."""
    batch_size: int = Field(default=64, ge=1)
    """Images per teacher forward pass."""
    workers: int | None = Field(default=None, ge=0)
    """Loader processes; None = by device and cores. Never changes the result."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Key of the views, and of random weights."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first N samples."""
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
    ignore_labels: bool = False
    """Store no labels: for a teacher whose classes are not the data set's."""

    @property
    def cache_name(self) -> str:
        """``name``, or the last part of ``out``."""
        return self.name or Path(self.out.rstrip("/")).name.removesuffix(".zarr")
