"""Reading a cache: open it, check that it is whole, read pages. Never a wrong number: an error instead."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError

from cache_builder.format import codec
from cache_builder.format.errors import CorruptCacheError, DataError, FormatError, IncompleteCacheError
from cache_builder.format.ids import SampleIds
from cache_builder.format.layout import (
    ROOT_ATTRIBUTE,
    ArraySpec,
    RecordLayout,
    Tile,
    digest_array,
    record_arrays,
    tile_arrays,
    tiles,
)
from cache_builder.format.manifest import FORMAT_VERSION, Manifest, TailBasis, array_digest, cache_digest
from cache_builder.format.store import list_keys, object_sizes, open_store, read_bytes

# What Zarr and its codecs raise for bytes that are not what they wrote; OSError is left alone because a
# disk that fails to answer says nothing about the data.
_DECODING_ERRORS = (ValueError, RuntimeError, TypeError, KeyError, IndexError, ZeroDivisionError, MemoryError)


def read_manifest(location: str | Path) -> Manifest | None:
    """The manifest at a location, without its tail basis; None where there is no cache.

    Raises :class:`FormatError` for a store that is something else or of an unknown version.
    """
    raw = read_bytes(open_store(location, read_only=True), "zarr.json")
    if raw is None:
        return None
    try:
        attributes = json.loads(raw).get("attributes", {})
    except (ValueError, AttributeError) as error:
        raise CorruptCacheError(f"{location}: zarr.json is damaged ({error})") from error
    if ROOT_ATTRIBUTE not in attributes:
        raise FormatError(
            f"{location} is a Zarr store, but not a kdcache: it lacks attributes[{ROOT_ATTRIBUTE!r}]"
        )
    return parse_manifest(attributes[ROOT_ATTRIBUTE], where=str(location))


def parse_manifest(body: dict[str, Any], where: str) -> Manifest:
    """Validate a manifest that came as JSON; ``where`` names its origin in errors."""
    version = body.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{where}: format version {version!r}, this release reads version {FORMAT_VERSION}; "
            "upgrade kdcache"
        )
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        raise FormatError(f"{where}: the manifest is not valid: {error}") from error


def open_cache(location: str | Path, *, allow_partial: bool = False) -> Cache:
    """Open a cache for reading.

    ``location``: a local path or an fsspec URL (``s3://…``). Raises :class:`FormatError` where there is no
    cache, :class:`IncompleteCacheError` when tiles are missing (unless ``allow_partial``) and
    :class:`CorruptCacheError` when the manifest and the commits do not give the cache_id.
    """
    manifest = read_manifest(location)
    if manifest is None:
        raise FormatError(
            f"{location}: there is no cache here (no zarr.json); build one with `kdcache build`"
        )
    cache = Cache(location, manifest)
    cache.check_complete(allow_partial)
    return cache


class Cache:
    """A cache open for reading. ``manifest`` carries its tail basis."""

    def __init__(self, location: str | Path, manifest: Manifest) -> None:
        self.location = str(location)
        self._store = open_store(location, read_only=True)
        self._manifest = manifest
        self.layout = RecordLayout(manifest.codec)

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(self._store, mode="r")

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest with the tail basis attached."""
        mean, basis = self.header_array("codec/mean"), self.header_array("codec/basis")
        return self._manifest.with_basis(TailBasis(mean, basis))

    @property
    def record_bytes(self) -> int:
        """Bytes of one packed record."""
        return self.layout.record_bytes

    @cached_property
    def ids(self) -> SampleIds:
        """Sample ids in row order."""
        return SampleIds(self.header_array("samples/id_bytes"), self.header_array("samples/id_offsets"))

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Labels [N], -1 where there is none."""
        return self.header_array("samples/label")

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """xxh64 of each sample's source bytes [N]."""
        spec = digest_array(self._manifest)
        first_group = [tile for tile in self.tiles if tile.group == 0]
        self._check_shards(first_group, [spec])
        return self._guarded(spec, ..., first_group)

    @cached_property
    def probe_pixels(self) -> NDArray[np.uint8]:
        """The render probe: pixels [pairs, 3, size, size] of the manifest's ``probe.pairs``."""
        return self.header_array("probe/pixels")

    @cached_property
    def tiles(self) -> list[Tile]:
        """All tiles the cache should have."""
        return list(tiles(self._manifest))

    @cached_property
    def commits(self) -> dict[str, dict[str, Any]]:
        """The commit objects that exist, by tile key."""
        found = set(list_keys(self._store, "commits/"))
        return {tile.key: self._read_commit(tile) for tile in self.tiles if tile.key in found}

    def rows_for(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of sample ids, in their order; unknown ids raise :class:`UnknownSampleError`."""
        return self.ids.rows_for(ids)

    def check_complete(self, allow_partial: bool = False) -> None:
        """Raise unless every tile is committed and manifest and commits give the stored cache_id."""
        missing = [tile for tile in self.tiles if tile.key not in self.commits]
        if not missing and self._manifest.cache_id is not None:
            commits = [self.commits[tile.key] for tile in self.tiles]
            if cache_digest(self._manifest, commits) != self._manifest.cache_id:
                raise CorruptCacheError(
                    f"{self.location}: manifest and commits do not give cache_id {self._manifest.cache_id}: "
                    "a file was edited or damaged; restore it or rebuild the cache"
                )
        elif not allow_partial:
            what = (
                f"{len(missing)} of {len(self.tiles)} tiles are missing" if missing else "it was never sealed"
            )
            raise IncompleteCacheError(
                f"{self.location} is incomplete: {what}; run the same `kdcache build` command again"
            )

    def header_array(self, path: str) -> NDArray[Any]:
        """One of the arrays named in the manifest's ``digests``, checked against its digest."""
        expected = self._manifest.digests.get(path)
        if expected is None:
            raise FormatError(f"{self.location} has no array {path!r}")
        try:
            array = np.asarray(self._array(path)[...])
        except _DECODING_ERRORS as error:
            raise CorruptCacheError(f"{self.location}: array {path} cannot be decoded ({error})") from error
        if array_digest(array) != expected:
            raise CorruptCacheError(
                f"{self.location}: array {path} does not match its digest in the manifest"
            )
        return array

    def read_page(self, view: int) -> NDArray[np.uint8]:
        """All records of one view, uint8 [N, record_bytes]: rows in order, fields as FORMAT.md states.

        Raises :class:`CorruptCacheError` naming the tile whose bytes fail their checksum.
        """
        if not 0 <= view < self._manifest.views.count:
            raise DataError(
                f"view {view} is out of range: the cache has views 0 to {self._manifest.views.count - 1}"
            )
        of_view = [tile for tile in self.tiles if view in tile.views]
        uncommitted = [tile for tile in of_view if tile.key not in self.commits]
        if uncommitted:
            raise IncompleteCacheError(f"{self.location}: view {view} lacks {len(uncommitted)} tile(s)")
        specs = record_arrays(self._manifest)
        self._check_shards(of_view, specs)
        page = np.empty(self._manifest.data.samples, self.layout.dtype)
        for spec, field in zip(specs, self.layout.fields, strict=True):
            page[field.name] = self._guarded(spec, view, of_view)
        return page.view(np.uint8).reshape(len(page), self.record_bytes)

    def decode(self, records: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Packed records uint8 [n, record_bytes] to dense logits float32 [n, C]."""
        return codec.decode(records, self._manifest.codec, self.manifest.basis)

    def damaged_shards(self) -> Iterable[str]:
        """Keys of shards whose bytes do not match their commit: reads every byte of the cache."""
        for tile in self.tiles:
            for shard, spec in self._committed_shards(tile, tile_arrays(self._manifest, tile)):
                data = read_bytes(self._store, spec.shard_key(tile))
                if data is None or len(data) != shard["bytes"] or zlib.crc32(data) != shard["crc32"]:
                    yield spec.shard_key(tile)

    def _array(self, path: str) -> zarr.Array[Any]:
        array = self._group[path]
        assert isinstance(array, zarr.Array)
        return array

    def _read_commit(self, tile: Tile) -> dict[str, Any]:
        data = read_bytes(self._store, tile.key) or b""
        try:
            commit: dict[str, Any] = json.loads(data)
            if commit["tile"] != [tile.group, tile.block] or commit["count"] != tile.count:
                raise ValueError(f"it describes tile {commit['tile']} of {commit['count']} records")
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptCacheError(f"{self.location}: {tile.key} ({tile}) is damaged: {error}") from error
        return commit

    def _committed_shards(
        self, tile: Tile, specs: list[ArraySpec]
    ) -> Iterable[tuple[dict[str, int], ArraySpec]]:
        shards = self.commits[tile.key]["shards"] if tile.key in self.commits else {}
        return [(shards[spec.path], spec) for spec in specs if spec.path in shards]

    def _check_shards(self, of_tiles: list[Tile], specs: list[ArraySpec]) -> None:
        """A shard that is gone would read as zeros, so presence and size are checked before Zarr reads."""
        wanted = [
            (tile, spec.shard_key(tile), shard["bytes"])
            for tile in of_tiles
            for shard, spec in self._committed_shards(tile, specs)
        ]
        sizes = object_sizes(self._store, [key for _, key, _ in wanted])
        for (tile, key, expected), size in zip(wanted, sizes, strict=True):
            if size != expected:
                found = "is missing" if size is None else f"has {size} bytes"
                raise CorruptCacheError(
                    f"{self.location}: shard {key} ({tile}) {found}, its commit says {expected} bytes; "
                    "restore the file or rebuild the cache"
                )

    def _guarded(self, spec: ArraySpec, selection: int | EllipsisType, of_tiles: list[Tile]) -> NDArray[Any]:
        """Read; when the bytes do not decode, find out which tile it was and say so."""
        try:
            return np.asarray(self._array(spec.path)[selection])
        except _DECODING_ERRORS as error:
            tile = self._damaged_tile(of_tiles, spec)
            where = f"shard {spec.shard_key(tile)} ({tile})" if tile else f"array {spec.path}"
            raise CorruptCacheError(
                f"{self.location}: {where} fails its checksum ({error}); "
                "restore the file or rebuild the cache"
            ) from error

    def _damaged_tile(self, of_tiles: list[Tile], spec: ArraySpec) -> Tile | None:
        for tile in of_tiles:
            for shard, _ in self._committed_shards(tile, [spec]):
                data = read_bytes(self._store, spec.shard_key(tile))
                if data is None or zlib.crc32(data) != shard["crc32"]:
                    return tile
        return None
