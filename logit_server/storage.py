"""Reading from a store whose files may be damaged, gone or out of reach: never a wrong number."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import CorruptCacheError, IncompleteCacheError, KDCacheError, StorageError
from cache_builder.format.codecs import Part
from cache_builder.format.layout import record_arrays
from cache_builder.format.root import read_body
from logit_server.errors import ReplacedCacheError
from logit_server.served_caches import ServedCache


def read_block(served: ServedCache, view: int, block: int, part: Part = Part.WHOLE) -> NDArray[np.uint8]:
    """The records of a block of a view, or a part of each, uint8 [positions of the block, bytes].

    Raises :class:`CorruptCacheError` (naming the tile), :class:`StorageError` or :class:`ReplacedCacheError`.
    """
    with storage_errors(served, f"view {view}"):
        try:
            records = served.cache.read_positions(view, served.blocks.rows(block), part=part)
        except (CorruptCacheError, IncompleteCacheError):
            _check_same(served)  # the records of another cache
            raise
        _check_same(served)
    return records


def check_reachable(served: ServedCache) -> None:
    """Look whether the store of a cache is there, and still holds that cache.

    Raises :class:`StorageError` or :class:`ReplacedCacheError`.
    """
    with storage_errors(served, "its manifest"):
        _check_same(served)


def _check_same(served: ServedCache) -> None:
    body = read_body(served.cache.location)
    if body is None:
        served.cache.check_reachable()
    elif body.get("cache_id") != served.cache_id:
        raise ReplacedCacheError(
            f"cache {served.name!r} was replaced while it was served: its id was {served.cache_id}; put it "
            "back, or restart the server"
        )


@contextlib.contextmanager
def storage_errors(served: ServedCache, what: str) -> Iterator[None]:
    """Turn what a read raises into errors for clients: they name cache and tile, not the server's folders."""
    try:
        yield
    except ReplacedCacheError:
        raise
    except StorageError as error:
        # The log has the whole of it; clients need not know where the store is.
        raise StorageError(f"cache {served.name!r}, {what}: its store is out of reach just now") from error
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
