"""Options behind a data set's path, as in ``csv:/data/train.csv?path=file&label=species``."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from cache_builder.format.errors import ConfigError
from cache_builder.names import unknown_name

# Only a tail that is nothing but NAME=VALUE: a glob may hold question marks too.
_TAIL = re.compile(r"\?(\w+=[^&]*(?:&\w+=[^&]*)*)$")


def split_options(kind: str, argument: str, known: Collection[str] | None) -> tuple[str, dict[str, str]]:
    """``PATH?name=value&...`` to the path and the options; ``known`` None takes any name.

    A path that exists as it is written has no options. Raises :class:`ConfigError` for an unknown or repeated
    option.
    """
    tail = _TAIL.search(argument)
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


def with_classes(spec: str, value: str) -> str:
    """A data set's spec with the option ``classes=value``, in place of the one it may have."""
    tail = _TAIL.search(spec)
    if tail is None or _is_path(spec.partition(":")[2]):
        return f"{spec}?classes={value}"
    others = [part for part in tail[1].split("&") if not part.startswith("classes=")]
    return spec[: tail.start()] + "?" + "&".join([*others, f"classes={value}"])
