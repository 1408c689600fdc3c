"""``kdcache serve``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cache_builder.console.ending import reported
from cache_builder.console.lazy import STYLE
from cache_builder.console.options import takes_settings
from cache_builder.format.errors import ConfigError
from logit_server.printed_settings import as_toml
from logit_server.settings import Settings
from logit_server.sources import gather, gather_settings

commands = typer.Typer(**STYLE)

_CONFIGURATION = "Settings and tokens"
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help='Take settings from a TOML file with lines such as `page_bytes = "2GiB"`. Also KDCACHE_CONFIG.',
        rich_help_panel=_CONFIGURATION,
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config",
        help="Print the settings as TOML, without secrets and with where each came from, and end.",
        rich_help_panel=_CONFIGURATION,
    ),
]
NewToken = Annotated[
    str | None,
    typer.Option(
        "--new-token",
        metavar="NAME",
        help="Make a random token: print its line for the file of --tokens, show the token itself, and end.",
        rich_help_panel=_CONFIGURATION,
    ),
]


@commands.command()
@takes_settings(reported)
def serve(
    context: typer.Context,
    settings: Settings,
    config: Config = None,
    print_config: PrintConfig = False,
    new_token: NewToken = None,
) -> None:
    """Serve finished caches over HTTP, by sample id.

    Example: `kdcache serve /data/vit_l.zarr --port 8000`, then
    `curl http://127.0.0.1:8000/v1/caches/vit_l/samples/n01440764/a.JPEG`

    Every option is also a variable (`--page-bytes` is KDCACHE_PAGE_BYTES, `--allowed-host` is
    KDCACHE_ALLOWED_HOSTS) and a line of the file of `--config`. A flag wins over a variable, a variable over
    the file.

    `kill -HUP` reads the list of caches again; the server does not end by it, nor when its terminal closes.
    """
    if new_token is not None:
        show_new_token(new_token)
        return
    gathered = gather(Settings, typed(context, settings), config)
    if print_config:
        typer.echo(as_toml(gathered), nl=False)
    else:
        run_serve(
            gathered.settings, functools.partial(gather_settings, Settings, typed(context, settings), config)
        )


def typed(context: typer.Context, settings: Settings) -> dict[str, object]:
    """The settings that the command line gave, without those that have their default."""
    sources = {name: context.get_parameter_source(name) for name in settings.model_fields_set}
    given = [name for name, source in sources.items() if source is None or source.name == "COMMANDLINE"]
    return {name: getattr(settings, name) for name in given}


def show_new_token(name: str) -> None:
    """Make a token: its line goes to stdout, for ``>> tokens.toml``, and the token to the terminal."""
    from logit_server.tokens import new_token

    token, line = new_token(name)
    typer.echo(line)
    typer.echo(f"the token of {name}, to be sent as KDCACHE_TOKEN; it is shown this once: {token}", err=True)


def run_serve(settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
    """Serve caches until stopped; ``reread`` gives the settings anew, when the list is read again."""
    try:
        from logit_server.run import serve
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise ConfigError(f"the server needs {missing}: pip install 'kdcache[server]'") from error
    serve(settings, reread=reread)
