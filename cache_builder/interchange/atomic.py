"""A file that is there wholly or not at all, on a disk or on an object store."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zarr.abc.store import Store

from cache_builder.format.conditional import create_object
from cache_builder.format.durable import fsync_file, take_name
from cache_builder.format.errors import ConfigError, StorageError
from cache_builder.format.locations import followed, is_remote, local_output
from cache_builder.format.locks.lock import claimed
from cache_builder.format.owned import partials_beside
from cache_builder.format.store import object_sizes, open_store, write_from_file

_MOST_CONDITIONAL_BYTES = 2**26
"""A larger object is put in parts, which have no condition."""


@contextmanager
def replaced(out: str | Path, force: bool) -> Iterator[Path]:
    """A temporary name to write to; it becomes ``out`` when the block ends without an error.

    For a URL it lies on this machine, and is put there in one step. What a process that was killed left
    beside a local ``out`` is removed. A link stays one: the file that it leads to is written. Raises
    :class:`ConfigError` where ``out`` is there already and is not to be overwritten.
    """
    check_free(out, force)
    with _uploaded(str(out), force) if is_remote(out) else _renamed(followed(local_output(out))) as partial:
        yield partial


def check_free(out: str | Path, force: bool) -> None:
    """Raise :class:`ConfigError` unless a file may be written at ``out``."""
    if not is_remote(out) and local_output(out).is_dir():
        raise ConfigError(f"--out {out} is a folder: expected the name of a file")
    if not force and file_size(out) is not None:
        raise ConfigError(f"{out} exists already: choose another --out, or overwrite it with --force")


def file_size(out: str | Path) -> int | None:
    """Bytes of a file or an object; None where there is none."""
    if is_remote(out):
        folder, name = _split(str(out))
        return object_sizes(open_store(folder, read_only=True), [name])[0]
    path = local_output(out)
    return path.stat().st_size if path.exists() else None


@contextmanager
def _renamed(file: Path) -> Iterator[Path]:
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


@contextmanager
def _uploaded(out: str, force: bool) -> Iterator[Path]:
    folder, name = _split(out)
    store = open_store(folder, read_only=False)
    own = Path(tempfile.mkdtemp(prefix="kdcache-"))
    partial, is_wanted = own / name, False
    try:
        yield partial
        check_free(out, force)  # by now somebody else may have written it
        _put(store, out, partial, force)
    except StorageError as error:
        is_wanted = partial.exists()
        if not is_wanted:
            raise
        raise StorageError(f"{error}; the file is whole in {partial}: copy it to {out}") from error
    finally:
        if not is_wanted:
            shutil.rmtree(own, ignore_errors=True)


def _put(store: Store, out: str, partial: Path, force: bool) -> None:
    """Write the object; only where there is none unless ``force``, as far as stores do that in one step."""
    name = _split(out)[1]
    if force or partial.stat().st_size > _MOST_CONDITIONAL_BYTES:
        write_from_file(store, name, partial)
    elif create_object(store, name, partial.read_bytes()) is None:
        raise ConfigError(f"{out} was written by somebody else meanwhile: choose another --out, or --force")


def _split(url: str) -> tuple[str, str]:
    """The folder's URL and the name of an object in it."""
    folder, _, name = url.rpartition("/")
    if not name or folder.endswith("/"):
        raise ConfigError(f"--out {url} names no file: expected a URL such as s3://BUCKET/NAME.parquet")
    return folder, name
