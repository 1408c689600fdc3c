"""A file that is there wholly or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache_builder.format.durable import fsync_file, take_name
from cache_builder.format.errors import ConfigError
from cache_builder.format.locations import followed
from cache_builder.format.locks.lock import claimed
from cache_builder.format.owned import partials_beside


@contextmanager
def replaced(out: Path, force: bool) -> Iterator[Path]:
    """A temporary name beside ``out`` to write to; it becomes ``out`` when the block ends without an error.

    What a process that was killed left of the same file is removed. A link stays one: the file that it leads
    to is written. Raises :class:`ConfigError` where ``out`` is there already and is not to be overwritten.
    """
    check_free(out, force)
    file = followed(out)
    with claimed(file, doing="written") as hold:
        for stale in partials_beside(file):
            stale.unlink(missing_ok=True)
        partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
        try:
            yield partial
            fsync_file(partial)
            hold.check()
            take_name(partial, file)
        finally:
            partial.unlink(missing_ok=True)


def check_free(out: Path, force: bool) -> None:
    """Raise :class:`ConfigError` unless a file may be written at ``out``."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: expected the name of a file")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists already: choose another --out, or overwrite it with --force")
