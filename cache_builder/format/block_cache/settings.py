"""Where blocks of remote caches are kept on this machine, and how much of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ByteSize, TypeAdapter, ValidationError

from cache_builder.format.errors import ConfigError
from cache_builder.format.locations import is_remote

FOLDER_VARIABLE = "KDCACHE_BLOCK_CACHE"
BYTES_VARIABLE = "KDCACHE_BLOCK_CACHE_BYTES"
OFF = "off"
DEFAULT_BYTES = 10 * 2**30
_SIZE = TypeAdapter(ByteSize)


@dataclass(frozen=True)
class BlockCacheSettings:
    """What the environment says of the block cache."""

    folder: Path
    """Where the blocks lie, as an absolute path."""
    most_bytes: int
    """What they may take on the disk together."""
    is_chosen: bool
    """Whether somebody named the folder: then a folder that cannot be used deserves a warning."""
    spares_disk: bool
    """Whether the blocks leave at least as much of the disk free as they take: where nobody gave a limit."""


def block_cache_settings() -> BlockCacheSettings | None:
    """What holds here; None where no blocks are kept.

    Raises :class:`ConfigError` for a folder that is a URL and for a size that is none.
    """
    given, size = os.environ.get(FOLDER_VARIABLE, "").strip(), os.environ.get(BYTES_VARIABLE, "").strip()
    most_bytes = _bytes(size) if size else DEFAULT_BYTES
    if given.lower() == OFF or not most_bytes:
        return None
    if is_remote(given):
        raise ConfigError(f"{FOLDER_VARIABLE} is {given!r}: expected a folder of this machine, or {OFF!r}")
    folder = Path(given).expanduser() if given else _default_folder()
    if folder is None:
        return None
    return BlockCacheSettings(folder.absolute(), most_bytes, bool(given), not size)


def _default_folder() -> Path | None:
    """In the user's folder of caches; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        caches = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return caches / "kdcache" / "blocks"


def _bytes(text: str) -> int:
    try:
        return int(_SIZE.validate_python(text))
    except ValidationError as error:
        raise ConfigError(
            f"{BYTES_VARIABLE} is {text!r}: expected a size such as 20GiB, or 0 to keep nothing"
        ) from error
