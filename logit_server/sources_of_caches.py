"""Which caches the settings name: each by itself, or all in a folder of caches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cache_builder.format import ConfigError, CorruptCacheError, FormatError, StorageError
from cache_builder.format.locations import is_remote, local_path
from cache_builder.format.root import ROOT_KEY, read_body

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Source:
    """A cache to serve."""

    name: str | None
    """The one it is given here; None for that of its manifest."""
    location: str
    folder: str | None = None
    """The folder of caches that it was found in, where it was not named itself."""


def split_name(item: str) -> tuple[str | None, str]:
    """``NAME=PATH`` to its parts; anything else is a path (write ``./a=b`` for a path of that form)."""
    name, equals, location = item.partition("=")
    if equals and _NAME.fullmatch(name):
        return name, location
    return None, item


def sources(items: Iterable[str]) -> Iterator[Source]:
    """The caches that the setting ``caches`` names, in its order; those of a folder by their names.

    Raises :class:`ConfigError` for a folder of caches that is given a name.
    """
    for item in items:
        name, location = split_name(item)
        inside = None if is_remote(location) else _caches_inside(location)
        if inside is None:
            yield Source(name, location)
        elif name is not None:
            raise ConfigError(
                f"{item}: {location} is a folder of {len(inside)} caches, and a name is for one cache: leave "
                "the name out, or name one of them"
            )
        else:
            yield from (Source(None, found, location) for found in inside)


def _caches_inside(location: str) -> list[str] | None:
    """The caches right below a local folder; None where it is a cache itself, or has none.

    Hidden folders are left out: an extension that is being made is one.
    """
    folder = local_path(location)
    if (folder / ROOT_KEY).exists() or not folder.is_dir():
        return None
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    found = [str(folder / name) for name in names if _is_cache(folder / name)]
    return found or None


def _is_cache(folder: Path) -> bool:
    """Whether a cache lies in a folder, be it damaged or out of reach.

    The arrays of a cache are Zarr stores too: one whose root is missing is no folder of caches.
    """
    if not (folder / ROOT_KEY).is_file():
        return False
    try:
        return read_body(folder) is not None
    except FormatError:
        return False
    except (CorruptCacheError, StorageError, OSError):
        return True
