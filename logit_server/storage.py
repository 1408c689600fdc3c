"""Reading from a store whose files may be damaged, gone or out of reach: never a wrong number."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import (
    Cache,
    CorruptCacheError,
    IncompleteCacheError,
    KDCacheError,
    StorageError,
)
from cache_builder.format.codecs import Part
from cache_builder.format.layout import record_arrays
from cache_builder.format.locations import is_remote
from logit_server.errors import ReplacedCacheError
from logit_server.served_caches import ServedCache

_T = TypeVar("_T")


def read_block(served: ServedCache, view: int, block: int, part: Part = Part.WHOLE) -> NDArray[np.uint8]:
    """The records of a block of a view, or a part of each, uint8 [positions of the block, bytes].

    Raises :class:`CorruptCacheError` (naming the tile), :class:`StorageError` or :class:`ReplacedCacheError`.
    """
    rows = served.blocks.rows(block)
    return read_cache(served, f"view {view}", lambda cache: cache.read_positions(view, rows, part=part))


def read_cache(served: ServedCache, what: str, read: Callable[[Cache], _T], *, as_it_was: bool = False) -> _T:
    """What ``read`` gives of the store of a cache; raises as :func:`read_block`.

    ``as_it_was``: only of the very cache, not of one that was made from it and holds its records too.
    """
    with storage_errors(served, what):
        return served.place.read(served.cache, read, as_it_was=as_it_was)


def check_reachable(served: ServedCache) -> None:
    """Look whether the store of a cache is there, and still holds what that cache held.

    Raises :class:`StorageError`, :class:`CorruptCacheError` or :class:`ReplacedCacheError`.
    """
    read_cache(served, "its manifest", lambda _: served.place.look())


@contextlib.contextmanager
def storage_errors(served: ServedCache, what: str) -> Iterator[None]:
    """Turn what a read raises into errors for clients: they name cache and tile, not the server's folders.

    The log has the whole of it.
    """
    try:
        yield
    except KDCacheError as error:
        raise public_error(served.name, served.cache.location, what, error) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cache {served.name!r}, {what}: {_place(served, error)} could not be read ({reason})"
        ) from error


def public_error(name: str, location: str, what: str, error: KDCacheError) -> KDCacheError:
    """What a read raised, for clients: with the name of the cache in place of where it lies.

    What is away or being written is a :class:`StorageError`, and never said to be damaged.
    """
    said = str(error).replace(location, f"cache {name!r}")
    if isinstance(error, ReplacedCacheError):
        return ReplacedCacheError(said)
    if not isinstance(error, (StorageError, IncompleteCacheError)):
        return CorruptCacheError(said)
    if is_remote(location) and isinstance(error, StorageError):  # they name servers, and what these answered
        said = "its store is out of reach just now, and is asked again by the next request"
    return StorageError(f"cache {name!r}, {what}: {said}")


def _place(served: ServedCache, error: OSError) -> str:
    """The store key an error is about, with its tile; "the store" where the error names no file."""
    root, name = Path(served.cache.location), error.filename
    if not isinstance(name, str) or not Path(name).is_relative_to(root):
        return "the store"
    key = Path(name).relative_to(root).as_posix()
    specs = record_arrays(served.manifest)
    tiles = (tile for tile in served.cache.tiles if any(spec.shard_key(tile) == key for spec in specs))
    return key + "".join(f" ({tile})" for tile in tiles)
