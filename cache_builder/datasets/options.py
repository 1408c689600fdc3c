"""Options behind a data set's path, as in ``csv:/data/train.csv?path=file&label=species``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cache_builder.console.names import OPTIONS, unknown_name
from cache_builder.format.errors import ConfigError


def split_options(kind: str, argument: str, known: Collection[str] | None) -> tuple[str, dict[str, str]]:
    """``PATH?name=value&...`` to the path and the options; ``known`` None takes any name.

    A path that exists as it is written has no options. Raises :class:`ConfigError` for an unknown or repeated
    option.
    """
    tail = OPTIONS.search(argument)
    if tail is None or _is_path(argument):
        return argument, {}
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in tail[1].split("&"))]
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ConfigError(f"{kind}:{argument}: an option is given twice")
    for name in options:
        if known is not None and name not in known:
            raise ConfigError(unknown_name(f"option of {kind}", name, known))
    return argument[: tail.start()], options


def _is_path(argument: str) -> bool:
    try:
        return Path(argument).expanduser().exists()
    except (OSError, ValueError):  # too long for a name, or no name at all
        return False
