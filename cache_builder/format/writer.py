"""Writing a cache: create the store, write whole tiles, commit them, finish."""

from __future__ import annotations

import glob
import json
import math
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store

from cache_builder.format.arrays import create_array, writing_zeros
from cache_builder.format.commits import Commit, Shard, make_commit
from cache_builder.format.errors import ConfigError, CorruptCacheError, DataError, FormatError
from cache_builder.format.fields import Fields
from cache_builder.format.ids import SampleIds
from cache_builder.format.layout import (
    ROOT_ATTRIBUTE,
    ArraySpec,
    Tile,
    digest_array,
    header_specs,
    record_arrays,
    tile_arrays,
)
from cache_builder.format.manifest import Manifest, SketchSection, array_digest, build_digest, cache_digest
from cache_builder.format.reader import open_cache, read_body
from cache_builder.format.statistics import TileStatistics
from cache_builder.format.store import (
    delete_object,
    fsync_folder,
    fsync_object,
    local_root,
    open_store,
    read_bytes,
    write_durably,
)

# Zarr's blosc stops at 2 GiB; well below it one chunk still fits beside others in memory.
MAX_CHUNK_BYTES = 2**29


@dataclass(frozen=True)
class SampleTable:
    """What names the rows: ids in row order and their labels (-1 = none)."""

    id_bytes: NDArray[np.uint8]
    id_offsets: NDArray[np.int64]
    labels: NDArray[np.int32]

    @classmethod
    def from_ids(cls, ids: Iterable[str], labels: NDArray[np.int32] | None) -> SampleTable:
        """Encode ids; raises :class:`DataError` for an id that cannot be a key (empty, twice, not UTF-8).

        ``labels``: integers [N] or None where the data set has none.
        """
        encoded = SampleIds.of(ids)
        _check_ids(encoded)
        return cls(encoded.id_bytes, encoded.offsets, _label_column(labels, len(encoded)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by store path."""
        return {
            "samples/id_bytes": self.id_bytes,
            "samples/id_offsets": self.id_offsets,
            "samples/label": self.labels,
        }


def _check_ids(ids: SampleIds) -> None:
    empty = np.flatnonzero(np.diff(ids.offsets) == 0)
    if empty.size:
        raise DataError(f"the sample id of row {empty[0]} is empty")
    invalid = ids.first_invalid()
    if invalid is not None:
        raise DataError(f"the sample id of row {invalid}, {ids[invalid]!r}, is not valid UTF-8: rename it")
    repeated = ids.repeated()
    if repeated is not None:
        raise DataError(f"sample id {ids[repeated]!r} occurs more than once")


def _label_column(labels: NDArray[np.integer[Any]] | None, rows: int) -> NDArray[np.int32]:
    if labels is None:
        return np.full(rows, -1, np.int32)
    column = np.asarray(labels)
    if column.shape != (rows,):
        raise DataError(f"expected {rows} labels, one per sample id, got {list(column.shape)}")
    if column.size and not -1 <= int(column.min()) <= int(column.max()) < 2**31:
        raise DataError(
            f"labels range from {column.min()} to {column.max()}, expected -1 (none) or a class id"
        )
    return column.astype(np.int32)


def header_arrays(
    manifest: Manifest, table: SampleTable, pixels: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Every array that is written once, before the first tile."""
    codec: dict[str, NDArray[Any]] = {"codec/mean": manifest.basis.mean, "codec/basis": manifest.basis.basis}
    if isinstance(manifest.codec, SketchSection):
        codec["codec/centres"] = manifest.basis.centres
    return table.arrays() | codec | {"probe/pixels": pixels}


def header_digests(arrays: dict[str, NDArray[Any]]) -> dict[str, str]:
    """The manifest's ``digests`` for those arrays."""
    return {path: array_digest(array) for path, array in sorted(arrays.items())}


def create(location: str | Path, manifest: Manifest, arrays: dict[str, NDArray[Any]]) -> None:
    """Create a store with its manifest and header arrays, and no tiles.

    A local store appears under its name in one rename, so a killed builder leaves nothing half-made.
    Raises :class:`ConfigError` where something else is in the way or the arrays do not fit the manifest.
    """
    specs = _checked_header(manifest, arrays)
    _check_chunk_sizes(manifest)
    store = open_store(location, read_only=False)
    root = local_root(store)
    if root is None:
        _write_header(store, manifest, arrays, specs)
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(f"{location} already exists: choose another --out or remove it")
    root.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two builders that start together must not write into one folder.
    making = root.with_name(f".{root.name}.{uuid.uuid4().hex}.creating")
    try:
        _write_header(open_store(making, read_only=False), manifest, arrays, specs)
        _fsync_tree(making)
        making.rename(root)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    fsync_folder(root.parent)


def _checked_header(manifest: Manifest, arrays: dict[str, NDArray[Any]]) -> list[ArraySpec]:
    specs = header_specs(manifest, arrays["samples/id_bytes"].size)
    for spec in specs:
        array = arrays[spec.path]
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ConfigError(
                f"header array {spec.path} is {array.dtype} {list(array.shape)}, "
                f"the manifest asks for {spec.dtype} {list(spec.shape)}"
            )
    if manifest.digests != header_digests(arrays):
        raise ConfigError("the manifest's digests are not those of the header arrays")
    return specs


def _check_chunk_sizes(manifest: Manifest) -> None:
    for spec in record_arrays(manifest):
        size = math.prod(spec.chunks) * spec.dtype.itemsize
        if size > MAX_CHUNK_BYTES:
            raise ConfigError(
                f"a chunk of {spec.path} would have {size:,} bytes, more than {MAX_CHUNK_BYTES:,}: "
                f"use fewer than {manifest.tiling.rows} rows per tile, or a smaller --top-k"
            )


def _write_header(
    store: Store, manifest: Manifest, arrays: dict[str, NDArray[Any]], specs: list[ArraySpec]
) -> None:
    group = zarr.create_group(store, overwrite=True)
    for spec in specs:
        stored = create_array(group, spec)
        if arrays[spec.path].size:
            writing_zeros(stored)[...] = arrays[spec.path]
    for spec in [*record_arrays(manifest), digest_array(manifest)]:
        create_array(group, spec)
    group.create_group("commits")
    # Last: a remote store without this attribute is not a cache.
    group.update_attributes({ROOT_ATTRIBUTE: manifest.model_dump(mode="json")})


def _fsync_tree(root: Path) -> None:
    store = open_store(root, read_only=True)
    for folder, _, files in os.walk(root):
        for name in files:
            fsync_object(store, str(Path(folder, name).relative_to(root)))


class CacheWriter:
    """Writes the tiles of one store. One writer owns a tile; different tiles may have different writers."""

    def __init__(self, location: str | Path, manifest: Manifest) -> None:
        """``manifest``: the one the store was created with; another one is a :class:`ConfigError`."""
        self.location = str(location)
        self.manifest = manifest
        self._store = open_store(location, read_only=False)
        body = read_body(location)
        if body is None:
            raise FormatError(f"{location}: there is no store to write to")
        self._build = build_digest(body)
        if self._build != build_digest(manifest.model_dump(mode="json")):
            raise ConfigError(
                f"{location} was created with another manifest: open the writer with read_manifest(location)"
            )
        self._group = zarr.open_group(self._store, mode="r+", zarr_format=3)

    def is_committed(self, tile: Tile) -> bool:
        """Whether the tile's commit object exists."""
        return read_bytes(self._store, tile.key) is not None

    def write_tile(
        self,
        tile: Tile,
        fields: Fields,
        digests: NDArray[np.uint64],
        invalid_rows: Iterable[int] = (),
        statistics: TileStatistics | None = None,
    ) -> int:
        """Write the shards of a tile, then commit it. Returns the bytes written.

        ``fields``: columns [views, rows, ...] of the tile; ``digests`` [rows], used by the first view group.
        ``invalid_rows``: row numbers in the data set. ``statistics`` go into the commit as they are. A tile
        that was committed before is rewritten.
        """
        columns = {f"records/{name}": column for name, column in fields.items()}
        columns["samples/digest"] = digests
        specs = tile_arrays(self.manifest, tile)
        for spec in specs:
            _check_column(spec, tile, columns.get(spec.path))
        self._unseal()
        # First: a commit must never stand beside shards it does not describe.
        delete_object(self._store, tile.key)
        shards = {spec.path: self._write_shard(spec, tile, columns[spec.path]) for spec in specs}
        commit = make_commit(self.manifest, self._build, tile, invalid_rows, shards, statistics)
        write_durably(self._store, tile.key, commit.to_bytes())
        return sum(shard.bytes for shard in shards.values())

    def adopt_tile(self, tile: Tile, commit: Commit, objects: Mapping[str, bytes]) -> None:
        """Take over a tile of another store of the same layout, byte for byte, then commit it.

        ``commit``: the other store's; ``objects``: its shards by array path.
        Raises :class:`CorruptCacheError` for bytes that are not what the commit says.
        """
        self._unseal()
        delete_object(self._store, tile.key)
        for spec in tile_arrays(self.manifest, tile):
            data, shard = objects[spec.path], commit.shards[spec.path]
            if (len(data), zlib.crc32(data)) != (shard.bytes, shard.crc32):
                raise CorruptCacheError(f"shard {spec.shard_key(tile)} ({tile}) is not what its commit says")
            write_durably(self._store, spec.shard_key(tile), data)
        own = make_commit(
            self.manifest, self._build, tile, commit.invalid_rows, commit.shards, commit.statistics
        )
        write_durably(self._store, tile.key, own.to_bytes())

    def _write_shard(self, spec: ArraySpec, tile: Tile, column: NDArray[Any]) -> Shard:
        key = spec.shard_key(tile)
        # Zarr would read what is there and merge; a writer that died may have left half a file.
        delete_object(self._store, key)
        array = self._group[spec.path]
        assert isinstance(array, zarr.Array)
        writing_zeros(array)[spec.selection(tile)] = column
        fsync_object(self._store, key)
        data = read_bytes(self._store, key)
        if data is None:
            raise CorruptCacheError(f"{key} is gone right after it was written: is the disk failing?")
        return Shard(bytes=len(data), crc32=zlib.crc32(data))

    def finish(self) -> Manifest:
        """Seal a cache whose tiles are all committed: note the invalid rows, give it its cache_id.

        Raises :class:`IncompleteCacheError` when a tile is missing and :class:`CorruptCacheError` when a
        commit or the size of a shard is not what it was.
        """
        cache = open_cache(self.location, allow_partial=True)
        cache.check_shards()
        invalid = {row for commit in cache.commits.values() for row in commit.invalid_rows}
        unsealed = self.manifest.model_copy(update={"invalid_rows": tuple(sorted(invalid)), "cache_id": None})
        commits = cache.commit_bytes_in_order()
        cache_id = cache_digest(unsealed.model_dump(mode="json"), commits)
        self.manifest = unsealed.model_copy(update={"cache_id": cache_id})
        self._replace_manifest(self.manifest)
        return self.manifest

    def _unseal(self) -> None:
        """A finished cache that is repaired has no cache_id until it is finished again."""
        if self.manifest.cache_id is not None:
            self.manifest = self.manifest.model_copy(update={"invalid_rows": (), "cache_id": None})
            self._replace_manifest(self.manifest)

    def _replace_manifest(self, manifest: Manifest) -> None:
        root = json.loads(read_bytes(self._store, "zarr.json") or b"{}")
        root["attributes"][ROOT_ATTRIBUTE] = manifest.model_dump(mode="json")
        write_durably(self._store, "zarr.json", json.dumps(root, indent=2).encode())

    def sweep(self) -> None:
        """Remove temporary files that a killed writer left. Call while no other writer is at work."""
        root = local_root(self._store)
        if root is None:
            return
        for path in root.rglob("*.partial"):
            path.unlink(missing_ok=True)
        for folder in root.parent.glob(f".{glob.escape(root.name)}.*.creating"):
            shutil.rmtree(folder, ignore_errors=True)


def _check_column(spec: ArraySpec, tile: Tile, column: NDArray[Any] | None) -> None:
    """Zarr would broadcast a wrong shape and wrap a wrong type."""
    expected = (*((len(tile.views),) if spec.shards else ()), len(tile.rows), *spec.shape[2:])
    if column is None or column.shape != expected or column.dtype != spec.dtype:
        found = "nothing" if column is None else f"{column.dtype} {list(column.shape)}"
        raise ValueError(f"{spec.path} of {tile}: got {found}, expected {spec.dtype} {list(expected)}")
