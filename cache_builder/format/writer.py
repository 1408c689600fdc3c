"""Writing a cache: create the store, write whole tiles, commit them, finish."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, TransposeCodec

from cache_builder.format.codec import Fields
from cache_builder.format.errors import CorruptCacheError, DataError
from cache_builder.format.layout import (
    ROOT_ATTRIBUTE,
    ArraySpec,
    Tile,
    digest_array,
    record_arrays,
    tile_arrays,
    tiles,
)
from cache_builder.format.manifest import Manifest, array_digest, cache_digest, canonical_json
from cache_builder.format.store import (
    fsync_folder,
    fsync_object,
    local_root,
    open_store,
    read_bytes,
    write_durably,
)


@dataclass(frozen=True)
class SampleTable:
    """What names the rows: ids in row order and their labels (-1 = none)."""

    id_bytes: NDArray[np.uint8]
    id_offsets: NDArray[np.int64]
    labels: NDArray[np.int32]

    @classmethod
    def from_ids(cls, ids: Iterable[str], labels: NDArray[np.int32] | None) -> SampleTable:
        """Encode ids; duplicates are refused because a sample id is a key."""
        encoded = [sample_id.encode() for sample_id in ids]
        if len(set(encoded)) != len(encoded):
            seen: set[bytes] = set()
            twice = next(item for item in encoded if item in seen or seen.add(item))  # type: ignore[func-returns-value]
            raise DataError(f"sample id {twice.decode()!r} occurs more than once")
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        if labels is None:
            labels = np.full(len(encoded), -1, np.int32)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets, np.asarray(labels, np.int32))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by store path."""
        return {
            "samples/id_bytes": self.id_bytes,
            "samples/id_offsets": self.id_offsets,
            "samples/label": self.labels,
        }


def header_arrays(
    manifest: Manifest, table: SampleTable, pixels: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Every array that is written once, before the first tile."""
    codec = {"codec/mean": manifest.basis.mean, "codec/basis": manifest.basis.basis}
    return table.arrays() | codec | {"probe/pixels": pixels}


def header_digests(arrays: dict[str, NDArray[Any]]) -> dict[str, str]:
    """The manifest's ``digests`` for those arrays."""
    return {path: array_digest(array) for path, array in sorted(arrays.items())}


def create(location: str | Path, manifest: Manifest, arrays: dict[str, NDArray[Any]]) -> None:
    """Create a store with its manifest and header arrays, and no tiles.

    A local store appears under its name in one rename, so a killed builder leaves nothing half-made.
    """
    root = local_root(open_store(location, read_only=False))
    if root is None:
        _write_header(open_store(location, read_only=False), manifest, arrays)
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    making = root.with_name(f".{root.name}.creating")
    shutil.rmtree(making, ignore_errors=True)
    _write_header(open_store(making, read_only=False), manifest, arrays)
    for folder, _, files in os.walk(making):
        for name in files:
            fsync_object(open_store(making, read_only=True), str(Path(folder, name).relative_to(making)))
    making.rename(root)
    fsync_folder(root.parent)


def _write_header(store: Store, manifest: Manifest, arrays: dict[str, NDArray[Any]]) -> None:
    group = zarr.create_group(store, overwrite=True)
    for path, array in arrays.items():
        stored = group.create_array(
            path,
            shape=array.shape,
            dtype=array.dtype,
            chunks=tuple(max(1, size) for size in array.shape),
            compressors=_compressors(array.dtype),
            fill_value=0,
        )
        if array.size:
            stored[...] = array
    for spec in [*record_arrays(manifest), digest_array(manifest)]:
        _create_array(group, spec)
    group.create_group("commits")
    # Last: a remote store without this attribute is not a cache.
    group.update_attributes({ROOT_ATTRIBUTE: manifest.model_dump(mode="json")})


def _create_array(group: zarr.Group, spec: ArraySpec) -> None:
    group.create_array(
        spec.path,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        filters=[TransposeCodec(order=spec.order)] if spec.order else None,
        serializer=BytesCodec(endian="little"),
        compressors=_compressors(spec.dtype),
        fill_value=0,
        dimension_names=spec.dimension_names,
    )


def _compressors(dtype: np.dtype[Any]) -> list[BloscCodec | Crc32cCodec]:
    blosc = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=dtype.itemsize)
    return [blosc, Crc32cCodec()]


class CacheWriter:
    """Writes the tiles of one store. One writer owns a tile; different tiles may have different writers."""

    def __init__(self, location: str | Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self._store = open_store(location, read_only=False)
        self._group = zarr.open_group(self._store, mode="r+")

    def is_committed(self, tile: Tile) -> bool:
        """Whether the tile's commit object exists."""
        return read_bytes(self._store, tile.key) is not None

    def write_tile(
        self, tile: Tile, fields: Fields, digests: NDArray[np.uint64], invalid_rows: Iterable[int] = ()
    ) -> int:
        """Write the shards of a tile, then commit it. Returns the bytes written.

        ``fields``: columns [views, rows, ...] of the tile; ``digests`` [rows], used by the first view group.
        """
        columns = {f"records/{name}": column for name, column in fields.items()}
        columns["samples/digest"] = digests
        shards = {}
        with zarr.config.set({"array.write_empty_chunks": True}):
            for spec in tile_arrays(self.manifest, tile):
                shards[spec.path] = self._write_shard(spec, tile, columns[spec.path])
        commit = {
            "tile": [tile.group, tile.block],
            "views": [tile.view_start, tile.view_stop],
            "rows": [tile.row_start, tile.row_stop],
            "count": tile.count,
            "invalid_rows": sorted(invalid_rows),
            "shards": shards,
        }
        write_durably(self._store, tile.key, canonical_json(commit))
        return sum(shard["bytes"] for shard in shards.values())

    def _write_shard(self, spec: ArraySpec, tile: Tile, column: NDArray[Any]) -> dict[str, int]:
        rows = slice(tile.row_start, tile.row_stop)
        selection = (slice(tile.view_start, tile.view_stop), rows) if spec.shards else (rows,)
        # Opened here, not kept: an array reads the empty-chunk setting when it is opened.
        array = self._group[spec.path]
        assert isinstance(array, zarr.Array)
        array[selection] = column
        key = spec.shard_key(tile)
        fsync_object(self._store, key)
        data = read_bytes(self._store, key)
        if data is None:
            raise CorruptCacheError(f"{key} is gone right after it was written: is the disk failing?")
        return {"bytes": len(data), "crc32": zlib.crc32(data)}

    def finish(self) -> Manifest:
        """Seal a cache whose tiles are all committed: note the invalid rows, give it its cache_id."""
        commits = [self._commit(tile) for tile in tiles(self.manifest)]
        invalid = sorted({row for commit in commits for row in commit["invalid_rows"]})
        body = self.manifest.model_copy(update={"invalid_rows": tuple(invalid), "cache_id": None})
        sealed = body.model_copy(update={"cache_id": cache_digest(body, commits)})
        self._group.update_attributes({ROOT_ATTRIBUTE: sealed.model_dump(mode="json")})
        fsync_object(self._store, "zarr.json")
        self.manifest = sealed
        return sealed

    def _commit(self, tile: Tile) -> dict[str, Any]:
        data = read_bytes(self._store, tile.key)
        if data is None:
            raise CorruptCacheError(f"cannot finish: the tile of {tile} has no commit")
        commit: dict[str, Any] = json.loads(data)
        return commit

    def sweep(self) -> None:
        """Remove temporary files that a killed writer left. Call while no other writer is at work."""
        root = local_root(self._store)
        for path in root.rglob("*.partial") if root else ():
            path.unlink(missing_ok=True)
