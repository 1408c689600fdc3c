"""``kdcache inspect``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from pydantic import Field
from rich.console import Console

from cache_builder.console.ending import reported
from cache_builder.console.lazy import STYLE
from cache_builder.console.options import Option, Settings, takes_settings
from cache_builder.format.errors import ConfigError

commands = typer.Typer(**STYLE)


class InspectSettings(Settings):
    """Settings of ``kdcache inspect``; each field is the flag of the same name."""

    cache: Annotated[str, Option(is_argument=True)]
    """Path or URL of a store."""
    sample: str | None = None
    """Sample id to decode. Default: the first."""
    view: int = Field(default=0, ge=0)
    """View of that sample, counted from 0."""
    calibration: Annotated[str | None, Option(metavar="PNG")] = None
    """Write a picture of the table that the record's settings were chosen from."""
    as_json: Annotated[bool, Option(flag="--json")] = False
    """Print one machine-readable JSON object."""
    show: Annotated[str | None, Option(metavar="ID")] = None
    """Write a picture of this sample in --view: the image and its crop, the view as the teacher saw it, what
    was drawn, and the teacher's most likely classes."""
    data: str | None = None
    """With --show: where the images are. Default: as when it was built."""
    out: str | None = None
    """With --show: the PNG file. Default: viewV-rowR.png."""


@commands.command()
@takes_settings(reported)
def inspect(settings: InspectSettings) -> None:
    """Show what a cache holds: manifest, size, completeness, the teacher's accuracy, one sample. Examples:
    `kdcache inspect vit_l.zarr`, `kdcache inspect vit_l.zarr --show n01440764/a.JPEG --view 1 --out a.png`,
    `kdcache inspect vit_l.zarr --calibration bytes.png`"""
    if settings.show is not None:
        run_show(settings, settings.show)
    elif settings.data is not None or settings.out is not None:
        raise ConfigError("--data and --out are for --show ID")
    else:
        run_inspect(settings)


def run_show(settings: InspectSettings, sample: str) -> None:
    """Write the picture of one record."""
    from cache_builder.build.preflight import check_cache, check_reopening
    from cache_builder.format.locations import local_output

    check_cache(settings.cache)
    check_reopening(settings.data, (), ())
    from cache_builder.look.show import show_view

    out = None if settings.out is None else local_output(settings.out)
    path = show_view(settings.cache, sample, settings.view, settings.data, out)
    Console().print(f"wrote {path}", highlight=False, soft_wrap=True, markup=False)


def run_inspect(settings: InspectSettings) -> None:
    """Describe a cache, for people or as JSON, and draw its rate-distortion table where that is wanted."""
    from cache_builder.format.locations import local_output
    from cache_builder.look.inspect import describe, show

    picture = settings.calibration
    path = None if picture is None else local_output(picture, "--calibration")
    description = describe(settings.cache, settings.sample, settings.view)
    if path is not None:
        from cache_builder.calibration.rate_picture import plot

        plot(description.manifest.calibration, description.manifest.name, path)
    if settings.as_json:
        sys.stdout.write(json.dumps(description.as_json()) + "\n")
    else:
        show(description, Console())
