"""Whole tiles from one store to another."""

from __future__ import annotations

import numpy as np

from cache_builder.format.errors import CorruptCacheError
from cache_builder.format.layout import Tile, tile_arrays
from cache_builder.format.positions import require_one_position
from cache_builder.format.reader import Cache
from cache_builder.format.store import open_store, read_many
from cache_builder.format.writer import CacheWriter


def copy_tile(source: Cache, writer: CacheWriter, tile: Tile) -> None:
    """Byte for byte; both stores have the tile in the same place, under the paths of their format versions.

    Raises :class:`CorruptCacheError` for a shard that is gone or not what its commit says.
    """
    specs = tile_arrays(source.manifest, tile)
    store = open_store(source.location, read_only=True)
    found = read_many(store, [spec.shard_key(tile) for spec in specs])
    objects = {}
    for spec, data in zip(specs, found, strict=True):
        if data is None:
            raise CorruptCacheError(f"{source.location}: shard {spec.shard_key(tile)} ({tile}) is missing")
        objects[spec.path] = data
    try:
        writer.adopt_tile(tile, source.commits[tile.key], objects)
    except CorruptCacheError as error:
        raise CorruptCacheError(
            f"{source.location}: {error}; `kdcache verify` looks at all of them"
        ) from error


def reencode_tile(source: Cache, writer: CacheWriter, tile: Tile) -> None:
    """Decode the records of a tile and encode them with the writer's codec."""
    require_one_position(source.manifest, source.location, "--reencode")
    target = writer.codec
    invalid = source.commits[tile.key].invalid_rows
    logits = np.stack([source.decode(source.read_rows(view, tile.rows)) for view in tile.views], axis=1)
    flat = logits.reshape(-1, logits.shape[2])
    unreadable = np.isnan(flat).any(axis=1)
    flat[unreadable] = 0
    records = target.pack(target.encode(flat, len(tile.views)))
    records[unreadable] = target.pack(target.invalid(int(unreadable.sum())))
    by_view = records.reshape(len(tile.rows), len(tile.views), -1).swapaxes(0, 1)
    digests = source.read_digests(tile.rows) if tile.group == 0 else np.zeros(len(tile.rows), np.uint64)
    statistics = source.commits[tile.key].statistics
    writer.write_records(tile, np.ascontiguousarray(by_view), digests, invalid, statistics)
