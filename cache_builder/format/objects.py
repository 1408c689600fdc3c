"""The objects of a cache's Zarr store, by key: what may be asked for, and what must be there."""

from __future__ import annotations

import re

from cache_builder.format.layout import digest_array, record_arrays
from cache_builder.format.metadata import groups_of
from cache_builder.format.reader import Cache
from cache_builder.format.store import object_sizes, open_store, read_range

_CHUNK = re.compile(r"c(/\d{1,9}){1,8}")
_METADATA = "zarr.json"


class CacheObjects:
    """The objects of an open cache, for those who serve them as they are. Leases and commits are none."""

    def __init__(self, cache: Cache) -> None:
        self._store = open_store(cache.location, read_only=True)
        specs = cache.array_specs()
        self._arrays = {spec.path for spec in specs}
        self._groups = groups_of(specs) - {"commits"}
        of_tiles = [*record_arrays(cache.manifest), digest_array(cache.manifest)]
        self._shards = {spec.shard_key(tile) for spec in of_tiles for tile in cache.tiles}

    def is_metadata(self, key: str) -> bool:
        """Whether it is the ``zarr.json`` of an array, or of a group below the root."""
        path = key.removesuffix(f"/{_METADATA}")
        return path != key and (path in self._arrays or path in self._groups)

    def has(self, key: str) -> bool:
        """Whether the store may have it; the root's ``zarr.json``, which is the manifest, not among them."""
        path, _, chunk = key.rpartition("/c/")
        return self.is_metadata(key) or (path in self._arrays and _CHUNK.fullmatch(f"c/{chunk}") is not None)

    def must_have(self, key: str) -> bool:
        """Whether the store lacks it where it is not there: chunks of zeros alone may be left out."""
        return self.is_metadata(key) or key in self._shards

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        return object_sizes(self._store, [key])[0]

    def read(self, key: str, part: range) -> bytes | None:
        """Some bytes of an object; None where there is none."""
        return read_range(self._store, key, part)
