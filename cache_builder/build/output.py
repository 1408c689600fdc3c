"""Where a cache may be written, and what it may be called."""

from __future__ import annotations

import os
import re

from cache_builder.format.creation import manifest_there
from cache_builder.format.errors import ConfigError
from cache_builder.format.locations import followed, is_remote, local_path

_CACHE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


def check_name(name: str) -> None:
    """Raise :class:`ConfigError` for what a server could not serve a cache as."""
    if not re.fullmatch(_CACHE_NAME, name):
        raise ConfigError(
            f"{name!r} cannot be the name of a cache: expected letters, digits, '.', '_' and "
            "'-', a letter or digit first; give one with --name"
        )


def check_output(out: str) -> None:
    """Refuse, before anything is computed, a place that holds something else or cannot be written."""
    if not out.strip():
        raise ConfigError("--out is empty: expected the folder of the cache, such as vit_l.zarr")
    if is_remote(out):
        manifest_there(out)
        return
    path = followed(local_path(out))
    if (path / "zarr.json").exists():
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{out} exists and is not a cache; nothing was touched: choose another --out")
    if path.is_mount():
        raise ConfigError(f"--out {out} is where a disk is mounted: choose a folder in it")
    store = next((parent for parent in path.parents if (parent / "zarr.json").exists()), None)
    if store is not None:
        raise ConfigError(f"--out {out} lies within another Zarr store, {store}: choose another --out")
    there = next(parent for parent in path.parents if parent.exists())
    if not there.is_dir():
        raise ConfigError(f"--out {out}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out}: {there} cannot be written to (permissions, or a read-only disk)")
