"""A file that is there wholly or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache_builder.format.errors import ConfigError
from cache_builder.format.store import fsync_folder


@contextmanager
def replaced(out: Path, force: bool) -> Iterator[Path]:
    """A temporary name beside ``out`` to write to; it becomes ``out`` when the block ends without an error.

    Raises :class:`ConfigError` where ``out`` is there already and is not to be overwritten.
    """
    check_free(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    fsync_folder(out.parent)


def check_free(out: Path, force: bool) -> None:
    """Raise :class:`ConfigError` unless a file may be written at ``out``."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: expected the name of a file")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists already: choose another --out, or overwrite it with --force")
