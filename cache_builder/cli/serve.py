"""``kdcache serve``."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import Field

from cache_builder.console.ending import reported
from cache_builder.console.lazy import STYLE
from cache_builder.console.options import Names, Option, Settings, takes_settings
from cache_builder.format.errors import ConfigError

commands = typer.Typer(**STYLE)


class ServeSettings(Settings):
    """The options of ``kdcache serve``; a server's other settings come from ``KDCACHE_*`` variables."""

    caches: Annotated[Names, Option(is_argument=True, metavar="CACHE...")]
    """Caches to serve: PATH or NAME=PATH."""
    data: Annotated[Names, Option(metavar="SPEC")] = ()
    """Data set whose pictures the server's pages show, SPEC or NAME=SPEC, such as imagefolder:/data/train."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    workers: int = Field(default=1, ge=1)
    """Server processes; they share the decoded pages."""


@commands.command()
@takes_settings(reported)
def serve(settings: ServeSettings) -> None:
    """Serve finished caches over HTTP, by sample id.

    Example: `kdcache serve /data/vit_l.zarr --port 8000`, then
    `curl http://127.0.0.1:8000/v1/caches/vit_l/samples/n01440764/a.JPEG`
    """
    run_serve(settings)


def run_serve(settings: ServeSettings) -> None:
    """Serve caches until stopped."""
    try:
        from logit_server.run import serve
        from logit_server.settings import Settings as ServerSettings
    except ModuleNotFoundError as error:
        raise ConfigError(f"the server needs {error.name}: pip install 'kdcache[server]'") from error
    serve(ServerSettings.checked(**settings.model_dump()))
