"""The arrays of a cache as they lie in a store: fetched, decoded, compared with the commits.

Never a wrong number: an error instead, that says which object it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.metadata import ArrayV3Metadata

from cache_builder.format.ahead import ahead, batched_by
from cache_builder.format.arrays import DECODING_ERRORS, array_over, metadata_of, open_array
from cache_builder.format.block_cache.keeper import block_keeper
from cache_builder.format.commits import (
    REPAIR,
    Commit,
    Commits,
    Shard,
    has_index,
    read_commit_bytes,
    read_index,
)
from cache_builder.format.errors import CorruptCacheError, IncompleteCacheError, KDCacheError, StorageError
from cache_builder.format.held import CompleteStore, HeldObject, HeldStore, Wish, fetch
from cache_builder.format.layout import ArraySpec, Tile, tile_arrays, tiles
from cache_builder.format.listing import Listing, listing
from cache_builder.format.manifest import Manifest, build_digest, parse_manifest
from cache_builder.format.near import NearStore
from cache_builder.format.remote import RemoteStore
from cache_builder.format.root import read_body
from cache_builder.format.store import object_sizes, open_store, read_bytes

BATCH_BYTES = 2**23
"""About so many compressed bytes are fetched at once, while those before them are decoded."""
_NAMED_IN_ERRORS = 3
# Tiles whose objects are asked for together.
_TILES_AT_ONCE = 512

Selection = EllipsisType | slice | tuple[int, slice]


class StoredArrays:
    """Manifest, commits and arrays of one store."""

    body: dict[str, Any]
    """The manifest's JSON as stored, of whatever version; ``manifest`` says the same as version 3 does."""

    def __init__(
        self,
        location: str | Path,
        body: dict[str, Any],
        commits: dict[str, bytes] | None = None,
        *,
        keeps_blocks: bool = True,
    ) -> None:
        """``body``: the manifest's JSON as stored.

        ``commits``: the commit objects by tile key, where the store holds those of this body no more, or
        somebody read them before. ``keeps_blocks``: whether what is read of a remote store may come from this
        machine's disk; not for those who look whether the store itself is whole.
        """
        self.location = str(location)
        self._given_commits = commits
        self._store = open_store(location, read_only=True)
        self.body = body
        self._manifest = parse_manifest(body, where=self.location)
        self._odd_metadata: dict[str, ArrayV3Metadata] = {}  # of arrays that are not coded as we would
        self._indexes: dict[str, bytes] = {}
        self._keeps_blocks = keeps_blocks
        self._near = self._near_store(keeps_blocks)

    def __getstate__(self) -> dict[str, Any]:
        """Threads, and what is near, do not travel to other processes."""
        return self.__dict__ | {"_near": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._near = self._near_store(self._keeps_blocks)

    def _near_store(self, keeps_blocks: bool) -> NearStore | None:
        """What is between a reader and a remote store; None where that may change, and for local ones."""
        cache_id = self._manifest.cache_id
        if cache_id is None or not keeps_blocks or not isinstance(self._store, RemoteStore):
            return None
        return NearStore(self._store, cache_id, block_keeper())

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self._manifest

    @cached_property
    def tiles(self) -> list[Tile]:
        """All tiles the cache should have."""
        return list(tiles(self._manifest))

    @cached_property
    def commits(self) -> Mapping[str, Commit]:
        """The commits that exist, by tile key; a damaged one is a :class:`CorruptCacheError`."""
        build = build_digest(self.body)
        found = Commits(self._commit_bytes, self.tiles, self._manifest, build, self.location)
        found.check()
        return found

    @cached_property
    def _commit_bytes(self) -> dict[str, bytes]:
        if self._given_commits is not None:
            return self._given_commits
        if has_index(self._manifest):
            return read_index(self._store, self.tiles, self.location)
        return read_commit_bytes(self._store, self.tiles)

    def listing(self) -> Listing:
        """Every object of the store."""
        return listing(self._store)

    def damaged_shards(self) -> Iterator[str]:
        """Keys of shards whose bytes do not match their commit: reads every byte of the cache."""
        for of_tile, held in self.whole_tiles():
            for tile, key, shard in self.committed_shards(of_tile):
                found = held.held[key]
                if not shard.matches(None if found is None else found.data):
                    yield f"{key} ({tile})"

    def whole_tiles(
        self, commits: Mapping[str, Commit] | None = None
    ) -> Iterator[tuple[list[Tile], CompleteStore]]:
        """Every byte of committed tiles, a few tiles at a time; nothing is compared with the commits.

        ``commits``: by tile key, where the caller knows better which there are.
        """
        known = self.commits if commits is None else commits

        def size(tile: Tile) -> int:
            return sum(shard.bytes for shard in known[tile.key].shards.values())

        def fetched(batch: list[Tile]) -> CompleteStore:
            keys = [spec.shard_key(tile) for tile in batch for spec in tile_arrays(self._manifest, tile)]
            return CompleteStore(self._store, fetch(self._store, map(Wish, keys), {}))

        there = [tile for tile in self.tiles if tile.key in known]
        batches = list(batched_by(there, size, BATCH_BYTES))
        yield from zip(batches, ahead(fetched, batches), strict=True)

    def check_shards(
        self,
        of_tiles: list[Tile] | None = None,
        specs: list[ArraySpec] | None = None,
        known: Listing | None = None,
    ) -> None:
        """Presence and size of committed shards, without reading them; ``known``: what a listing says.

        Raises :class:`CorruptCacheError` naming the first shard that is not there or not of its size.
        """
        everything = self.tiles if of_tiles is None else of_tiles
        for start in range(0, len(everything), _TILES_AT_ONCE):
            wanted = list(self.committed_shards(everything[start : start + _TILES_AT_ONCE], specs))
            keys = [key for _, key, _ in wanted]
            if known is not None:
                sizes = [known[key].size if key in known else None for key in keys]
            else:
                sizes = object_sizes(self._store, keys)
            for (tile, key, shard), size in zip(wanted, sizes, strict=True):
                self._check_size(tile, key, shard, size)

    def _check_size(self, tile: Tile, key: str, shard: Shard, size: int | None) -> None:
        if size != shard.bytes:
            self.check_same_store()
            found = "is missing" if size is None else f"has {size} bytes"
            raise CorruptCacheError(
                f"{self.location}: shard {key} ({tile}) {found}, its commit says {shard.bytes} bytes; "
                f"{REPAIR}"
            )

    def check_reachable(self) -> None:
        """Raise :class:`StorageError` where the whole store is away: what is missing then is not damaged."""
        if read_bytes(self._store, "zarr.json") is None:
            raise StorageError(
                f"{self.location} is out of reach: nothing is there any more. Was it unmounted, renamed or "
                "removed? Bring it back; what was opened before goes on with it"
            )

    def check_unchanged(self) -> None:
        """Raise :class:`IncompleteCacheError` where a sealed cache was opened, and it is not that any more.

        What a build or a repair writes meanwhile does not fit the commits that were read, and is not damaged.
        """
        if self._manifest.cache_id is not None and read_body(self.location) != self.body:
            raise IncompleteCacheError(
                f"{self.location} was changed since it was opened: a build, a repair or an extension writes "
                "it anew. Wait until that ends, then open it again"
            )

    def committed_shards(
        self, of_tiles: list[Tile], specs: list[ArraySpec] | None = None
    ) -> Iterator[tuple[Tile, str, Shard]]:
        """(tile, key, what it must be) of the committed shards, all of a tile's arrays unless named."""
        for tile in of_tiles:
            if tile.key in self.commits:
                for spec in tile_arrays(self._manifest, tile) if specs is None else specs:
                    yield tile, spec.shard_key(tile), self.commits[tile.key].shards[spec.path]

    def require_commits(self, of_tiles: list[Tile], what: str) -> None:
        """Raise :class:`IncompleteCacheError` unless all of some tiles are committed."""
        missing = [tile for tile in of_tiles if tile.key not in self.commits]
        if missing:
            raise IncompleteCacheError(
                f"{self.location}: {what} lacks {len(missing)} tile(s), the first is {missing[0]}; "
                "run the same `kdcache build` command again"
            )

    def size_of(self, of_tiles: list[Tile], specs: list[ArraySpec]) -> int:
        """About so many bytes are fetched for one view of some tiles."""
        return sum(wish.nbytes for wish in self._wishes(of_tiles, specs, of_tiles[0].view_start))

    def _wishes(
        self, of_tiles: list[Tile], specs: list[ArraySpec] | None, view: int | None
    ) -> Iterator[Wish]:
        """The shards of committed tiles, or what they hold of one view."""
        for tile in of_tiles:
            for spec in tile_arrays(self._manifest, tile) if specs is None else specs:
                chunks = spec.shards[0] // spec.chunks[0] if spec.shards else 1
                chunk = None if view is None else (view - tile.view_start) % chunks
                shard = self.commits[tile.key].shards[spec.path]
                yield Wish(spec.shard_key(tile), shard.bytes, chunks, chunk, shard.crc32)

    def held_shards(
        self, of_tiles: list[Tile], specs: list[ArraySpec] | None, view: int | None
    ) -> CompleteStore:
        """What committed tiles hold of one view, fetched at once; :class:`CorruptCacheError` as below."""
        held = self._fetch(self._wishes(of_tiles, specs, view))
        for tile, key, shard in self.committed_shards(of_tiles, specs):
            found = held[key]
            size = None if found is None else found.size
            if size != shard.bytes:
                # An answer of another length says what the size is not.
                (size,) = object_sizes(self._store, [key])
            self._check_size(tile, key, shard, size)
            if found is not None and found.size != shard.bytes:
                self._forget(tile_arrays(self._manifest, tile)[0], [tile])
                raise StorageError(
                    f"{self.location}/{key}: {found.size:,} bytes came of an object that has "
                    f"{shard.bytes:,}: it is being replaced, or a proxy keeps an old one; try again"
                )
        return CompleteStore(self._store, held)

    def _fetch(self, wishes: Iterable[Wish]) -> dict[str, HeldObject | None]:
        """What is wished for, from as near as it is."""
        if self._near is None:
            return fetch(self._store, wishes, self._indexes)
        wanted = list(wishes)
        self._near.expect(wanted)
        try:
            return fetch(self._near, wanted, self._indexes)
        finally:
            self._near.keep()

    def fetch_ahead(self, of_tiles: list[Tile], specs: list[ArraySpec], view: int) -> None:
        """Where a thread reads block after block of a remote store, fetch those that come next meanwhile.

        ``of_tiles``: what it just read.
        """
        if self._near is None or not of_tiles:
            return
        group, blocks = of_tiles[0].group, self.tiles[-1].block + 1
        what = view, group, tuple(spec.path for spec in specs)
        size = self.size_of(of_tiles[-1:], specs)
        coming = self._near.coming(what, of_tiles[0].block, of_tiles[-1].block, size)
        following = [self.tiles[group * blocks + block] for block in coming if block < blocks]
        there = [tile for tile in following if tile.key in self.commits]
        if there:
            self._near.fetch_ahead(self._wishes(there, specs, view), self._indexes)

    def values_of(
        self,
        spec: ArraySpec,
        selection: Selection,
        of_tiles: list[Tile],
        held: HeldStore,
    ) -> NDArray[Any]:
        """Read; when the bytes do not decode, find out which tile it was and say so."""
        try:
            return np.asarray(array_over(held, spec, self._odd_metadata.get(spec.path))[selection])
        except DECODING_ERRORS as error:
            try:
                found = self._read_as_stored(spec, selection, held)
            except DECODING_ERRORS:
                found = None
            if found is None:
                raise self.undecodable(spec, of_tiles, error) from error
            return found

    def _read_as_stored(self, spec: ArraySpec, selection: Selection, held: HeldStore) -> NDArray[Any] | None:
        """By the stored metadata, where another writer coded the array in another way; else None."""
        try:
            array = open_array(held, spec, self.location)
        except CorruptCacheError:
            self.check_same_store()
            raise
        stored = array.metadata
        assert isinstance(stored, ArrayV3Metadata)
        if spec.path in self._odd_metadata or stored.codecs == metadata_of(spec).codecs:
            return None
        found = np.asarray(array[selection])
        self._odd_metadata[spec.path] = stored
        return found

    def check_same_store(self) -> None:
        """Raise where the store is away or holds something else by now: then nothing of it is damaged."""
        self.check_reachable()
        self.check_unchanged()

    def undecodable(self, spec: ArraySpec, of_tiles: list[Tile], error: Exception) -> KDCacheError:
        """What it means that bytes did not decode: each shard is read once more and compared."""
        self._forget(spec, of_tiles)
        self.check_same_store()
        self.check_shards(of_tiles, [spec])
        shards = list(self.committed_shards(of_tiles, [spec]))
        damaged = [(tile, key) for tile, key, shard in shards if not self._is_intact(key, shard)]
        if shards and not damaged:
            return StorageError(
                f"{self.location}: array {spec.path} came with wrong bytes ({error}), though what is stored "
                "is whole: the disk, the network or a proxy changes what is read; try again"
            )
        where = ", ".join(f"shard {key} ({tile})" for tile, key in damaged[:_NAMED_IN_ERRORS])
        remedy = REPAIR if damaged else "restore the file or rebuild the cache"
        return CorruptCacheError(
            f"{self.location}: {where or f'array {spec.path}'} fails its checksum ({error}); {remedy}"
        )

    def _forget(self, spec: ArraySpec, of_tiles: list[Tile]) -> None:
        """Forget what is near of tiles, or of a header array, that do not decode: then the store is asked."""
        self._indexes.clear()
        if self._near is not None:
            keys = [one.shard_key(tile) for tile in of_tiles for one in tile_arrays(self._manifest, tile)]
            self._near.forget(keys or spec.chunk_keys())

    def _is_intact(self, key: str, shard: Shard) -> bool:
        return shard.matches(read_bytes(self._store, key))
