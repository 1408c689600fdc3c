"""Which names a cache's own code writes. Nothing else is ever removed."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from cache_builder.format.errors import ConfigError

CLAIM_KEY = ".kdcache-creating"
"""On an object store: names what a creation that is under way writes. See :mod:`creation`."""
LEASE_KEY = ".kdcache-builder"
"""On an object store: who builds there now."""
BLOCK_LEASES = ".kdcache-leases"
"""Folder of the leases of row blocks, while builders share an output. See :mod:`locks.block_leases`."""

_UNIQUE = "[0-9a-f]{32}"
_GROUP = "(?:samples|codec|probe|records|commits)"
# Records and what their codec needs lie below the name of an output, but for versions 1 and 2.
_ARRAY = rf"(?:(?:codec|records)/\w+/\w+|{_GROUP}/\w+)"
_COMMIT = r"commits/(?:g\d{5,}-b\d{7,}\.json|index)"
_KEY = rf"zarr\.json|{_GROUP}/zarr\.json|{_ARRAY}/(?:zarr\.json|c(?:/\d+)+)|{_COMMIT}"
_BLOCK_LEASE = rf"{re.escape(BLOCK_LEASES)}/b\d{{7,}}-t\d+\.json"
_LEASED_BLOCK = re.compile(_BLOCK_LEASE.replace(r"\d{7,}", r"(\d{7,})"))
_FOLDER = re.compile(rf"{_GROUP}|{_ARRAY}|{_ARRAY}/c(?:/\d+)*|{re.escape(BLOCK_LEASES)}")
# Zarr replaces a suffix where we add one.
_STEM = rf"(?:{_KEY}|{_BLOCK_LEASE}|(?:{_GROUP}/|{_ARRAY}/)?zarr)"
_OBJECT = re.compile(rf"{_KEY}|{re.escape(CLAIM_KEY)}|{re.escape(LEASE_KEY)}|{_BLOCK_LEASE}|\.lock")
_PARTIAL = re.compile(rf"{_STEM}\.{_UNIQUE}\.partial")


def block_lease_key(block: int, turn: int) -> str:
    """The lease of a row block: turn 0 is who comes first, each later turn who finds the one before dead."""
    return f"{BLOCK_LEASES}/b{block:07d}-t{turn}.json"


def leased_block(key: str) -> int | None:
    """The row block whose lease a key names; None for another key."""
    found = _LEASED_BLOCK.fullmatch(key)
    return int(found[1]) if found else None


def is_partial(key: str) -> bool:
    """Whether a file of a cache is what a writer that died left of an object."""
    return _PARTIAL.fullmatch(key) is not None


def is_own(key: str) -> bool:
    """Whether a key is one that a cache may have, now or while it is written."""
    return _OBJECT.fullmatch(key) is not None or is_partial(key)


def partials_beside(out: Path) -> list[Path]:
    """What exports of this name that died left beside it."""
    return _matching(out.parent, rf"\.{re.escape(out.name)}\.{_UNIQUE}\.partial")


def creations_beside(root: Path) -> list[Path]:
    """The folders of creations of this name that died, or are under way."""
    return _matching(root.parent, rf"\.+{re.escape(root.name)}(?:\.{_UNIQUE}\.creating)+")


def _matching(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.iterdir() if re.fullmatch(pattern, path.name) and not path.is_symlink()]


def foreign(root: Path) -> list[str]:
    """What lies in the folder of a cache and was not written by us, as paths relative to it."""
    return sorted(path.relative_to(root).as_posix() for path in _below(root) if not _is_ours(path, root))


def removed(root: Path) -> list[str]:
    """Remove what we wrote in a folder, and the folder where nothing else is in it; gives what stays."""
    for path in _below(root):
        if _is_ours(path, root):
            _removed(path)
    _removed(root)
    return foreign(root)


def remove(root: Path) -> None:
    """Remove a folder of ours; :class:`ConfigError` where things of somebody else are in it, which stay."""
    if not root.exists() and not root.is_symlink():
        return
    stay = foreign(root)
    if stay or root.is_symlink() or not root.is_dir():
        raise ConfigError(
            f"{root} has the name of a temporary folder of kdcache and holds what kdcache did not write "
            f"({', '.join(stay[:3]) or 'it is no folder'}): nothing was removed; move that away and run the "
            "same command again"
        )
    removed(root)


def _below(root: Path) -> list[Path]:
    """Everything in a folder, what lies deepest first; links are not followed."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root, topdown=False):
        found += [Path(folder, name) for name in [*files, *folders]]
    return found


def _is_ours(path: Path, root: Path) -> bool:
    name = path.relative_to(root).as_posix()
    if path.is_symlink():
        return False
    return _FOLDER.fullmatch(name) is not None if path.is_dir() else is_own(name)


def _removed(path: Path) -> None:
    """A folder that is not empty stays."""
    with suppress(FileNotFoundError):
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()
