"""Writing a cache: create the store, write whole tiles, commit them, finish."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from cache_builder.format.arrays import create_array, writing_zeros
from cache_builder.format.by_block import ByBlock, HeaderArray
from cache_builder.format.class_names import NO_NAMES, ClassNames
from cache_builder.format.codecs import Codec, Fields, Ranked
from cache_builder.format.coded import coded_blocks
from cache_builder.format.commits import (
    INDEX_KEY,
    Commit,
    Shard,
    has_index,
    identity_bytes,
    index_bytes,
    make_commit,
    read_commit_bytes,
)
from cache_builder.format.creation import create as create
from cache_builder.format.creation import header_digests as header_digests
from cache_builder.format.errors import (
    ConfigError,
    CorruptCacheError,
    DataError,
    FormatError,
    IncompleteCacheError,
    KDCacheError,
)
from cache_builder.format.ids import DecimalIds, Ids, SampleIds
from cache_builder.format.layout import (
    ROOT_ATTRIBUTE,
    ArraySpec,
    Tile,
    digest_array,
    record_arrays,
    record_path,
    tile_arrays,
    tiles,
)
from cache_builder.format.listing import listing
from cache_builder.format.locations import followed
from cache_builder.format.locks.block_leases import remove_block_leases
from cache_builder.format.manifest import (
    LOGITS,
    Manifest,
    build_digest,
    cache_digest,
    parse_manifest,
)
from cache_builder.format.owned import CLAIM_KEY, creations_beside, is_partial, removed
from cache_builder.format.reader import Cache
from cache_builder.format.repeated_ids import first_repeated
from cache_builder.format.root import ROOT_KEY, body_of
from cache_builder.format.statistics import TileStatistics
from cache_builder.format.store import (
    delete_object,
    list_keys,
    local_root,
    open_store,
    read_bytes,
    write_durably,
    write_many,
)


@dataclass(frozen=True)
class SampleTable:
    """What names the rows: ids in row order and their labels (-1 = none)."""

    ids: Ids
    labels: NDArray[np.int32]
    names: ClassNames = NO_NAMES
    """What the classes of the labels are called."""

    @classmethod
    def from_ids(
        cls, ids: Iterable[str], labels: NDArray[np.int32] | None, names: ClassNames | None = None
    ) -> SampleTable:
        """Encode ids; raises :class:`DataError` for an id that cannot be a key (empty, twice, not UTF-8).

        ``labels``: integers [N] or None where the data set has none.
        """
        known = ids if isinstance(ids, Ids) else SampleIds.of(ids)
        _check_ids(known)
        return cls(known, _label_column(labels, len(known)), names or NO_NAMES)

    def arrays(self) -> dict[str, HeaderArray]:
        """The arrays by store path; their bytes are made of the ids when somebody wants them."""
        text = ByBlock(
            self._text_bytes, np.dtype(np.uint8), lambda: (block.id_bytes for block in self.ids.blocks())
        )
        return {
            "samples/id_bytes": text,
            "samples/id_offsets": ByBlock(len(self.ids) + 1, np.dtype(np.int64), self._offsets),
            "samples/label": self.labels,
        }

    @cached_property
    def _text_bytes(self) -> int:
        return sum(map(len, self._text()))

    def _text(self) -> Iterator[NDArray[np.uint8]]:
        return (block.id_bytes for block in self.ids.blocks())

    def _offsets(self) -> Iterator[NDArray[np.int64]]:
        """Where each id begins in the text of all, and where the last one ends."""
        yield np.zeros(1, np.int64)
        end = 0
        for block in self.ids.blocks():
            yield block.offsets[1:] + end
            end += len(block.id_bytes)


def _check_ids(ids: Ids) -> None:
    if isinstance(ids, DecimalIds):
        return
    row = 0
    for block in ids.blocks():
        empty = np.flatnonzero(np.diff(block.offsets) == 0)
        if empty.size:
            raise DataError(f"the sample id of row {row + empty[0]} is empty")
        row += len(block)
    invalid = ids.first_invalid()
    if invalid is not None:
        raise DataError(f"the sample id of row {invalid}, {ids[invalid]!r}, is not valid UTF-8: rename it")
    repeated = first_repeated(ids)
    if repeated is not None:
        raise DataError(f"sample id {ids[repeated]!r} occurs more than once")


def _label_column(labels: NDArray[np.integer[Any]] | None, rows: int) -> NDArray[np.int32]:
    if labels is None:
        return np.broadcast_to(np.int32(-1), (rows,))  # one number in memory
    column = np.asarray(labels)
    if column.shape != (rows,):
        raise DataError(f"expected {rows} labels, one per sample id, got {list(column.shape)}")
    if column.size and not -1 <= int(column.min()) <= int(column.max()) < 2**31:
        raise DataError(
            f"labels range from {column.min()} to {column.max()}, expected -1 (none) or a class id"
        )
    return column.astype(np.int32, copy=False)


def header_arrays(
    codec: Codec[Any], table: SampleTable, pixels: NDArray[np.uint8] | None
) -> dict[str, HeaderArray]:
    """Every array that is written once, before the first tile, by the paths of the newest format version.

    ``pixels``: uint8 [pairs, 3, S, S] of the probe; None where there is none.
    """
    stored = {f"codec/{LOGITS}/{name}": array for name, array in codec.arrays.items()}
    probe = {} if pixels is None else {"probe/pixels": pixels}
    return table.arrays() | table.names.arrays() | stored | probe


NO_RESULTS: dict[str, Any] = {"cache_id": None, "invalid_rows": ()}
"""What a manifest says before its tiles are written."""


def tile_columns(records: NDArray[np.uint8], codec: Codec[Any]) -> Fields:
    """Packed records [views, rows, record_bytes] as the columns [views, rows, ...] that a store holds.

    Fields that the views share have one view only.
    """
    flat = codec.unpack(records.reshape(-1, records.shape[-1]))
    columns = {name: column.reshape(*records.shape[:2], *column.shape[1:]) for name, column in flat.items()}
    shared = {field.name for field in codec.layout.fields if field.shared}
    return {name: column[:1] if name in shared else column for name, column in columns.items()}


def _unchecked() -> None:
    """Nobody else writes, as in tests and tools."""


class CacheWriter:
    """Writes the tiles of one store. One writer owns a tile; different tiles may have different writers."""

    sealed: Cache | None = None
    """What :meth:`finish` sealed, with the commits in memory."""

    def __init__(
        self,
        location: str | Path,
        manifest: Manifest,
        check: Callable[[], None] = _unchecked,
        created: bytes | None = None,
    ) -> None:
        """``manifest``: the one the store was created with; another one is a :class:`ConfigError`.

        ``check`` is called before anything is written and raises where the right to write was lost.
        ``created``: the ``zarr.json`` of a store that this process has created a moment ago, in which there
        is nothing yet that would have to be looked for.
        """
        self.location = str(location)
        self._check = check
        self.manifest = manifest
        self._store = open_store(location, read_only=False)
        root = created or read_bytes(self._store, ROOT_KEY)
        if root is None:
            raise FormatError(f"{location}: there is no store to write to")
        self._root: dict[str, Any] = json.loads(root)
        self._body = body = body_of(root, location)
        self._written: dict[str, bytes] = {}  # commits of this process, by tile key
        self.is_new = created is not None
        self._there: set[str] | None = set() if self.is_new else None  # keys of commits of before
        self._build = build_digest(body)
        if _settled(parse_manifest(body, self.location)) != _settled(manifest):
            raise ConfigError(
                f"{location} was created with another manifest: open the writer with read_manifest(location)"
            )
        self._encoder = _ShardEncoder(manifest)
        self._folder = _identity(self._store)

    @cached_property
    def codec(self) -> Ranked[Any]:
        """What encodes the records of this store, with the arrays that it was created with."""
        return Cache(self.location, self._body).codec

    def is_committed(self, tile: Tile) -> bool:
        """Whether the tile's commit object exists."""
        return tile.key in self._written or read_bytes(self._store, tile.key) is not None

    def shared_fields(self, tile: Tile) -> Fields | None:
        """The fields [rows, ...] that the tile's views share, where older views have settled them."""
        return None

    def write_tile(
        self,
        tile: Tile,
        fields: Fields,
        digests: NDArray[np.uint64],
        invalid_rows: Iterable[int] = (),
        statistics: TileStatistics | None = None,
    ) -> int:
        """Write the shards of a tile, then commit it. Returns the bytes written.

        ``fields``: columns [views, positions, ...] of the tile; ``digests`` [rows], used by the first view
        group. ``invalid_rows``: row numbers in the data set. ``statistics`` go into the commit as they are.
        A tile that was committed before is rewritten.
        """
        columns = {record_path(self.manifest, LOGITS, name): column for name, column in fields.items()}
        columns["samples/digest"] = digests
        specs = tile_arrays(self.manifest, tile)
        for spec in specs:
            if spec.coded is not None:
                columns[spec.path] = coded_blocks(self.codec, spec, columns[spec.path])
            _check_column(spec, tile, columns.get(spec.path))
        with self._rewriting(tile):
            data = {spec.path: self._encoder.encoded(spec, tile, columns[spec.path]) for spec in specs}
            shards = {path: Shard.of(shard) for path, shard in data.items()}
            commit = make_commit(self.manifest, self._build, tile, invalid_rows, shards, statistics)
            self._check_commit(tile, commit)
            self._write_shards({spec.shard_key(tile): data[spec.path] for spec in specs})
            self._write_commit(tile, commit)
        return sum(shard.bytes for shard in shards.values())

    def write_records(
        self,
        tile: Tile,
        records: NDArray[np.uint8],
        digests: NDArray[np.uint64],
        invalid_rows: Iterable[int] = (),
        statistics: TileStatistics | None = None,
    ) -> int:
        """As :meth:`write_tile`, from packed records [views, rows, record_bytes]."""
        fields = tile_columns(records, self.codec)
        return self.write_tile(tile, fields, digests, invalid_rows, statistics)

    def adopt_tile(self, tile: Tile, commit: Commit, objects: Mapping[str, bytes]) -> None:
        """Take over a tile of another store of the same layout, byte for byte, then commit it.

        ``commit``: the other store's; ``objects``: its shards by array path, in the order of the layout's
        arrays; their paths may be those of another format version.
        Raises :class:`CorruptCacheError` for bytes that are not what the commit says.
        """
        specs = tile_arrays(self.manifest, tile)
        stored = dict(zip((spec.path for spec in specs), objects.items(), strict=True))
        for spec, (path, data) in zip(specs, objects.items(), strict=True):
            if not commit.shards[path].matches(data):
                key = replace(spec, path=path).shard_key(tile)
                raise CorruptCacheError(f"shard {key} ({tile}) is not what its commit says")
        shards = {path: commit.shards[theirs] for path, (theirs, _) in stored.items()}
        own = make_commit(self.manifest, self._build, tile, commit.invalid_rows, shards, commit.statistics)
        with self._rewriting(tile):
            self._write_shards({spec.shard_key(tile): stored[spec.path][1] for spec in specs})
            self._write_commit(tile, own)

    def withdraw(self, tile: Tile) -> None:
        """Take the commit of a tile away: it is to be written anew."""
        with self._rewriting(tile):
            pass

    @contextmanager
    def _rewriting(self, tile: Tile) -> Iterator[None]:
        """Who writes still may, finds the store where it was, and leaves no commit of other shards."""
        self._check()
        with self._present():
            self.unseal()
            # First: a commit must never stand beside shards it does not describe.
            if self._may_have_commit(tile):
                self._written.pop(tile.key, None)
                delete_object(self._store, tile.key)
            yield

    def _may_have_commit(self, tile: Tile) -> bool:
        """Whether there may be a commit of a tile, which is this process's own: one listing tells of all."""
        if local_root(self._store) is not None:
            return True
        if self._there is None:
            self._there = set(list_keys(self._store, "commits/"))
        return tile.key in self._there or tile.key in self._written

    @contextmanager
    def _present(self) -> Iterator[None]:
        """The folder is the one it was: where it was removed or unmounted, nothing is made in its place."""
        try:
            if _identity(self._store) != self._folder:
                raise FileNotFoundError
            yield
        except (FileNotFoundError, NotADirectoryError):
            if _identity(self._store) == self._folder:
                raise
            raise KDCacheError(
                f"{self.location} is gone: it was removed, renamed or unmounted while it was being written. "
                "Nothing is made in its place; bring it back and run the same command again, which continues "
                "what is there, or begins anew where it is gone for good"
            ) from None

    def _check_commit(self, tile: Tile, commit: Commit) -> None:
        """Called before the shards of a commit are written: one writer owns a tile, so that all is well."""

    def _write_shards(self, objects: dict[str, bytes]) -> None:
        """Several at a time on a remote store, which hides its latency."""
        if local_root(self._store) is None:
            write_many(self._store, objects)
            return
        for key, data in objects.items():
            write_durably(self._store, key, data)

    def _write_commit(self, tile: Tile, commit: Commit) -> None:
        data = commit.to_bytes()
        write_durably(self._store, tile.key, data)
        self._written[tile.key] = data

    def finish(self) -> Manifest:
        """Seal a cache whose tiles are all committed: note the invalid rows, give it its cache_id.

        Raises :class:`IncompleteCacheError` when a tile is missing and :class:`CorruptCacheError` when a
        commit or the size of a shard is not what it was.
        """
        self._check()
        with self._present():
            return self._sealed()

    def _sealed(self) -> Manifest:
        # As of a cache that is being written: the commits of the tiles are the truth, not an index of them.
        self._body |= {"invalid_rows": [], "cache_id": None}
        known = listing(self._store)
        # Nobody else should have written to them; where the store does not say so, they are read.
        own = {
            key: data for key, data in self._written.items() if key in known and known[key].is_certainly(data)
        }
        others = [tile for tile in tiles(self.manifest) if tile.key not in own]
        there = own | read_commit_bytes(self._store, others)
        cache = Cache(self.location, self._body, there)
        commits = cache.commits_as_stored()
        lost = sorted(key for key in there if key not in known)
        if lost:
            raise IncompleteCacheError(
                f"{self.location}: {lost[0]} is gone: was it deleted meanwhile? Run the same command again"
            )
        cache.check_shards(known=known)
        self.sealed = cache
        invalid = sorted({row for commit in cache.commits.values() for row in commit.invalid_rows})
        self._body["invalid_rows"] = invalid
        cache_id = cache_digest(self._body, map(identity_bytes, commits))
        self._body["cache_id"] = cache_id
        results = {"invalid_rows": tuple(invalid), "cache_id": cache_id}
        self.manifest = self.manifest.model_copy(update=results)
        if has_index(self.manifest):
            write_durably(self._store, INDEX_KEY, index_bytes(commits))
        self._replace_manifest()
        return self.manifest

    def remake_index(self) -> bool:
        """Write the index of a sealed cache where it is not what the tiles' commits say; whether it was not.

        Raises :class:`CorruptCacheError` where these commits do not give the cache_id.
        """
        if not has_index(self.manifest):
            return False
        self._check()
        found = read_commit_bytes(self._store, list(tiles(self.manifest)))
        if cache_digest(self._body, _identities(found.values())) != self.manifest.cache_id:
            raise CorruptCacheError(
                f"{self.location}: the commits of the tiles do not give cache_id {self.manifest.cache_id}, "
                "so that no index can be made of them: restore them, or rebuild the cache"
            )
        index = index_bytes(found.values())
        is_whole = read_bytes(self._store, INDEX_KEY) == index
        if not is_whole:
            write_durably(self._store, INDEX_KEY, index)
        return not is_whole

    def unseal(self) -> None:
        """A finished cache that is repaired has no cache_id, and no index, until it is finished again."""
        if self.manifest.cache_id is not None:
            is_indexed = has_index(self.manifest)
            self.manifest = _without_results(self.manifest)
            self._body |= {"invalid_rows": [], "cache_id": None}
            self._replace_manifest()
            if is_indexed:
                delete_object(self._store, INDEX_KEY)

    def _replace_manifest(self) -> None:
        self._root["attributes"][ROOT_ATTRIBUTE] = self._body
        write_durably(self._store, ROOT_KEY, json.dumps(self._root, indent=2).encode())

    def sweep(self) -> None:
        """Remove what a killed writer left, also the leases of dead ones that shared it.

        Call while no other writer is at work, nor creates this cache.
        """
        root = local_root(self._store)
        if root is None:
            if not self.is_new:
                delete_object(self._store, CLAIM_KEY)  # of a creation that was killed after its last step
                remove_block_leases(self._store)
            return
        remove_block_leases(self._store)
        for path in root.rglob("*.partial"):
            if is_partial(path.relative_to(root).as_posix()) and not path.is_symlink():
                path.unlink(missing_ok=True)
        for folder in creations_beside(followed(root)):
            removed(folder)


def _identities(commits: Iterable[bytes]) -> list[bytes]:
    """What the cache_id takes of commit objects; of one that is damaged, its bytes, which never give it."""
    found = []
    for commit in commits:
        try:
            found.append(identity_bytes(commit))
        except (ValueError, TypeError):
            found.append(commit)
    return found


def _settled(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(exclude=set(NO_RESULTS))


def _without_results(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update=NO_RESULTS)


def _identity(store: Store) -> tuple[int, int] | None:
    """What tells the folder of a local store from another one of its name; None where there is none."""
    root = local_root(store)
    try:
        found = None if root is None else root.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found and (found.st_dev, found.st_ino)


class _ShardEncoder:
    """Has Zarr encode one shard at a time, in memory: what is written is whole, and nothing else is made."""

    def __init__(self, manifest: Manifest) -> None:
        self._store = MemoryStore()
        group = zarr.create_group(self._store)
        specs = [*record_arrays(manifest), digest_array(manifest)]
        self._arrays = {spec.path: writing_zeros(create_array(group, spec)) for spec in specs}

    def encoded(self, spec: ArraySpec, tile: Tile, column: NDArray[Any]) -> bytes:
        """The object of this tile's part of an array."""
        key = spec.shard_key(tile)
        self._arrays[spec.path][spec.selection(tile)] = column
        data = read_bytes(self._store, key)
        assert data is not None
        delete_object(self._store, key)
        return data


def _check_column(spec: ArraySpec, tile: Tile, column: NDArray[Any] | None) -> None:
    """Zarr would broadcast a wrong shape and wrap a wrong type."""
    covered = tuple(part.stop - part.start for part in spec.selection(tile))
    expected = (*covered, *spec.shape[len(covered) :])
    if column is None or column.shape != expected or column.dtype != spec.dtype:
        found = "nothing" if column is None else f"{column.dtype} {list(column.shape)}"
        raise ValueError(f"{spec.path} of {tile}: got {found}, expected {spec.dtype} {list(expected)}")
