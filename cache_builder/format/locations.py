"""Where things lie: a local path or a URL. A URL is never taken for the name of a folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cache_builder.format.errors import ConfigError

_FILE = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)
# Path("s3://bucket") is "s3:/bucket", and so is what many shells and scripts make of it.
_ONE_SLASH = re.compile(r"(s3a?|gs|gcs|az|abfss?|https?|hf|memory|file):/(?!/)", re.IGNORECASE)


def is_remote(location: str | Path) -> bool:
    """Whether a location is a URL of something that is no local file: all but ``file://``."""
    text = str(location)
    return "://" in text and not _FILE.match(text)


def local_path(location: str | Path) -> Path:
    """The path of a local location, which may be written as ``file:///…``.

    Raises :class:`ConfigError` for any other URL, and for one that lost a slash on its way.
    """
    text = str(location)
    broken = _ONE_SLASH.match(text)
    if broken and not Path(broken.group(1) + ":").exists():
        raise ConfigError(
            f"{text} looks like a URL that lost a slash: write {broken.group(1)}://…, or another name"
        )
    if is_remote(text):
        raise ConfigError(f"{text} is a URL: expected a local path")
    return Path(_FILE.sub("", text, count=1))


def local_output(location: str | Path, flag: str = "--out") -> Path:
    """The path of a file or a folder that a command writes; :class:`ConfigError` unless it is a local one.

    ``flag`` names the option in the message. ``file://`` URLs are local paths.
    """
    text = str(location)
    if not text.strip():
        raise ConfigError(f"{flag} is empty: expected the name of a local file or folder")
    if is_remote(text):
        raise ConfigError(
            f"{flag} {text}: this command writes to local disks only; give a local path, and copy what it "
            "wrote to the object store afterwards"
        )
    return local_path(text)


def followed(path: Path) -> Path:
    """An absolute path without symbolic links, which need not exist: what may be renamed or replaced.

    A link that a user made stays a link: what it leads to is written, also where that does not exist yet.
    Raises :class:`ConfigError` for links that lead in a circle.
    """
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise ConfigError(f"{path}: its symbolic links lead in a circle, at {real}: remove one of them")
    return real
