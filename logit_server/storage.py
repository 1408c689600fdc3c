"""Reading from a store whose files may be damaged, gone or out of reach: never a wrong number."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import CorruptCacheError, KDCacheError
from cache_builder.format.layout import record_arrays
from cache_builder.format.reader import read_manifest
from logit_server.catalog import ServedCache
from logit_server.errors import StorageError


def read_page(served: ServedCache, view: int) -> NDArray[np.uint8]:
    """The records of a view, uint8 [N, record_bytes].

    Raises :class:`CorruptCacheError` (naming the tile) or :class:`StorageError`.
    """
    with storage_errors(served, f"view {view}"):
        records = served.cache.read_page(view)
        now = read_manifest(served.cache.location)
    if now is None or now.cache_id != served.cache_id:
        raise CorruptCacheError(
            f"cache {served.name!r} was replaced or removed while it was served: its id was "
            f"{served.cache_id}; restart the server"
        )
    return records


@contextlib.contextmanager
def storage_errors(served: ServedCache, what: str) -> Iterator[None]:
    """Turn what a read raises into errors for clients: they name cache and tile, not the server's folders."""
    try:
        yield
    except KDCacheError as error:
        raise CorruptCacheError(
            str(error).replace(served.cache.location, f"cache {served.name!r}")
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cache {served.name!r}, {what}: {_place(served, error)} could not be read ({reason})"
        ) from error


def _place(served: ServedCache, error: OSError) -> str:
    """The store key an error is about, with its tile; "the store" where the error names no file."""
    root, name = Path(served.cache.location), error.filename
    if not isinstance(name, str) or not Path(name).is_relative_to(root):
        return "the store"
    key = Path(name).relative_to(root).as_posix()
    specs = record_arrays(served.manifest)
    tiles = (tile for tile in served.cache.tiles if any(spec.shard_key(tile) == key for spec in specs))
    return key + "".join(f" ({tile})" for tile in tiles)
