"""Reading a cache: open it, check that it is whole, read pages. Never a wrong number: an error instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from cache_builder.format.arrays import DECODING_ERRORS, open_array
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs import Part, Ranked, Stored, open_codec
from cache_builder.format.coded import uncoded_block
from cache_builder.format.commits import (
    REPAIR,
    REPAIR_INDEX,
    Commit,
    Shard,
    has_index,
    identity_bytes,
    parse_commit,
    read_commit_bytes,
    read_index,
)
from cache_builder.format.errors import (
    CorruptCacheError,
    DataError,
    FormatError,
    IncompleteCacheError,
    KDCacheError,
    StorageError,
)
from cache_builder.format.ids import SampleIds
from cache_builder.format.layout import (
    ArraySpec,
    Blocks,
    Tile,
    codec_path,
    digest_array,
    header_specs,
    output_arrays,
    record_arrays,
    tile_arrays,
    tiles,
)
from cache_builder.format.manifest import (
    LOGITS,
    Manifest,
    array_digest,
    build_digest,
    cache_digest,
    parse_manifest,
)
from cache_builder.format.manifest.compare import version_3_path
from cache_builder.format.positions import Positions
from cache_builder.format.root import read_body
from cache_builder.format.statistics import TeacherStatistics, figures
from cache_builder.format.store import CompleteStore, object_sizes, open_store, read_bytes

_NAMED_IN_ERRORS = 3


def open_cache(location: str | Path, *, allow_partial: bool = False) -> Cache:
    """Open a cache for reading.

    ``location``: a local path or an fsspec URL (``s3://…``). Raises :class:`FormatError` where there is no
    cache, :class:`IncompleteCacheError` when tiles are missing (unless ``allow_partial``) and
    :class:`CorruptCacheError` when the manifest and the commits do not give the cache_id.
    """
    body = _body_there(location)
    cache = Cache(location, body)
    try:
        cache.check_complete(allow_partial)
    except CorruptCacheError:
        # Somebody may have unsealed, sealed or taken it away between the manifest and the commits.
        cache.check_reachable()
        now = _body_there(location)
        if now == body:
            raise
        cache = Cache(location, now)
        cache.check_complete(allow_partial)
    return cache


def _body_there(location: str | Path) -> dict[str, Any]:
    body = read_body(location)
    if body is None:
        raise FormatError(
            f"{location}: there is no cache here (no zarr.json); build one with `kdcache build`"
        )
    return body


class Cache:
    """A cache open for reading."""

    body: dict[str, Any]
    """The manifest's JSON as stored, of whatever version; ``manifest`` says the same as version 3 does."""

    def __init__(
        self, location: str | Path, body: dict[str, Any], commits: dict[str, bytes] | None = None
    ) -> None:
        """``body``: the manifest's JSON as stored; use :func:`open_cache`, which also checks the commits.

        ``commits``: the commit objects by tile key, where the store holds those of this body no more.
        """
        self.location = str(location)
        self._given_commits = commits
        self._store = open_store(location, read_only=True)
        self.body = body
        self._manifest = parse_manifest(body, where=self.location)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self.layout = self._manifest.codec.layout
        self.blocks = Blocks.of(self._manifest)
        self.position_blocks = Blocks.of_positions(self._manifest)

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self._manifest

    @cached_property
    def codec(self) -> Ranked[Any]:
        """What decodes the records: the manifest's codec with the arrays that the store keeps for it."""
        return open_codec(self._manifest.codec, self._manifest.classes, self.codec_array)

    @property
    def record_bytes(self) -> int:
        """Bytes of one packed record."""
        return self.layout.record_bytes

    @cached_property
    def ids(self) -> SampleIds:
        """Sample ids in row order."""
        return SampleIds(self.header_array("samples/id_bytes"), self.header_array("samples/id_offsets"))

    @cached_property
    def names(self) -> ClassNames:
        """What the classes are called."""
        return ClassNames.read(self._manifest, self.body, self.header_array)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the C classes in logit order; None where nobody named them."""
        return self.names.teacher

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Labels [N], -1 where there is none."""
        return self.header_array("samples/label")

    @cached_property
    def positions(self) -> Positions:
        """Which positions the rows own."""
        return Positions.read(self._manifest, self.header_array)

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """xxh64 of each sample's source bytes [N]; 0 for a row that could not be read."""
        return self.read_digests(range(self._manifest.data.samples))

    @cached_property
    def probe_pixels(self) -> NDArray[np.uint8]:
        """The render probe: pixels [pairs, 3, size, size] of the manifest's ``probe.pairs``."""
        return self.header_array("probe/pixels")

    @cached_property
    def tiles(self) -> list[Tile]:
        """All tiles the cache should have."""
        return list(tiles(self._manifest))

    @cached_property
    def commits(self) -> dict[str, Commit]:
        """The commits that exist, by tile key; a damaged one is a :class:`CorruptCacheError`."""
        build = build_digest(self.body)
        return {
            tile.key: parse_commit(
                self._commit_bytes[tile.key], self._manifest, build, tile, where=self.location
            )
            for tile in self.tiles
            if tile.key in self._commit_bytes
        }

    @cached_property
    def _commit_bytes(self) -> dict[str, bytes]:
        if self._given_commits is not None:
            return self._given_commits
        if has_index(self._manifest):
            return read_index(self._store, self.tiles, self.location)
        return read_commit_bytes(self._store, self.tiles)

    def commits_as_stored(self) -> list[bytes]:
        """The commit objects in tile order; :class:`IncompleteCacheError` when one is missing."""
        self._require_commits(self.tiles, "the cache")
        return [self._commit_bytes[tile.key] for tile in self.tiles]

    def commit_bytes_in_order(self) -> list[bytes]:
        """What the cache_id takes of each commit; :class:`IncompleteCacheError` when one is missing."""
        return [identity_bytes(commit) for commit in self.commits_as_stored()]

    def statistics(self) -> TeacherStatistics | None:
        """The teacher's accuracy, calibration and entropy, from its live logits on the committed tiles.

        None where no commit tells: an older release wrote the cache, or the statistics are damaged.
        """
        sums = (commit.statistics for commit in self.commits.values())
        return figures((tile for tile in sums if tile is not None), self._manifest.classes)

    def rows_for(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of sample ids, in their order; unknown ids raise :class:`UnknownSampleError`."""
        return self.ids.rows_for(ids)

    def check_complete(self, allow_partial: bool = False) -> None:
        """Raise unless every tile is committed and manifest and commits give the stored cache_id."""
        missing = [tile for tile in self.tiles if tile.key not in self.commits]
        if not missing and self._manifest.cache_id is not None:
            if cache_digest(self.body, self.commit_bytes_in_order()) != self._manifest.cache_id:
                remedy = f"{REPAIR_INDEX}; or " if has_index(self._manifest) else "restore it or "
                raise CorruptCacheError(
                    f"{self.location}: manifest and commits do not give cache_id {self._manifest.cache_id}: "
                    f"a file was edited or damaged; {remedy}rebuild the cache"
                )
        elif not allow_partial:
            what = f"{len(missing)} of {len(self.tiles)} tiles are missing" if missing else "it is not sealed"
            raise IncompleteCacheError(
                f"{self.location} is incomplete: {what}; where a build or a repair is at work, wait until it "
                "ends, else run the same `kdcache build` command again"
            )

    def header_array(self, path: str) -> NDArray[Any]:
        """One of the arrays named in the manifest's ``digests``, checked against its digest."""
        expected = self._manifest.digests.get(path)
        spec = self._header_spec(path)
        if expected is None or spec is None:
            raise FormatError(f"{self.location} has no array {path!r}")
        array = self._guarded(spec, ..., [])
        if array_digest(array) != expected:
            self._check_same_store()
            raise CorruptCacheError(
                f"{self.location}: array {path} does not match its digest in the manifest; "
                "restore the file or rebuild the cache"
            )
        return array

    def codec_array(self, name: str, output: str = LOGITS) -> NDArray[Any]:
        """One of the header arrays of an output's codec, such as ``mean``."""
        return self.header_array(codec_path(self._manifest, output, name))

    def header_arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays that are written once, by the paths they have in the newest format version."""
        stored = {version_3_path(path): self.header_array(path) for path in self._manifest.digests}
        return stored | self.names.arrays()

    def array_specs(self) -> list[ArraySpec]:
        """Every array of the store; raises as :meth:`header_array` does."""
        headers = [self._header_spec(path) for path in sorted(self._manifest.digests)]
        known = [spec for spec in headers if spec is not None]
        return [*known, *record_arrays(self._manifest), digest_array(self._manifest)]

    def _header_spec(self, path: str) -> ArraySpec | None:
        # Only text has a length that the manifest does not know; its offsets end with it.
        sizes = {}
        if path.endswith("_bytes"):
            offsets = f"{path.removesuffix('_bytes')}_offsets"
            sizes = {path: int(self.header_array(offsets)[-1])}
        return next((spec for spec in header_specs(self._manifest, sizes) if spec.path == path), None)

    def read_page(self, view: int) -> NDArray[np.uint8]:
        """All records of one view, uint8 [N, record_bytes]: rows in order, fields as FORMAT.md states.

        Of a cache of several positions a sample, those that belong to one, as :meth:`read_rows` gives them.

        Raises :class:`DataError` for a view the cache does not have, :class:`IncompleteCacheError` for one
        that is not wholly written and :class:`CorruptCacheError` naming the tile whose bytes fail a check.
        """
        return self.read_rows(view, range(self._manifest.data.samples))

    def read_rows(self, view: int, rows: range, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As :meth:`read_page`, of consecutive rows only: no tile but those of the rows is looked at.

        ``out``: uint8 [n, record_bytes], contiguous, which is filled and returned. Rows of several positions
        give their records one after the other, ``positions.counts(rows)`` each.
        """
        of_rows = self._readable(view, rows)
        if out is None:
            out = np.empty((self.positions.total(rows), self.record_bytes), np.uint8)
        filled = 0
        for run in self.positions.runs(rows):
            self._read_run(view, run, of_rows, out[filled : filled + len(run)])
            filled += len(run)
        return out

    def read_positions(
        self, view: int, positions: range, out: NDArray[np.uint8] | None = None, part: Part = Part.WHOLE
    ) -> NDArray[np.uint8]:
        """As :meth:`read_rows`, of consecutive positions; those that belong to no row are zeros.

        ``part``: which fields of the records are read, so that ``out`` has as many bytes a record.
        """
        if not 0 <= positions.start <= positions.stop <= self.position_blocks.samples:
            raise DataError(
                f"positions {positions.start}-{positions.stop - 1} are out of range: the cache has positions "
                f"0 to {self.position_blocks.samples - 1}"
            )
        of_rows = self._readable(view, self.blocks.spanned(self.position_blocks.meeting(positions)), part)
        if out is None:
            out = np.empty((len(positions), self.layout.part(part).record_bytes), np.uint8)
        self._read_run(view, positions, of_rows, out, part)
        return out

    def _readable(self, view: int, rows: range, part: Part = Part.WHOLE) -> list[Tile]:
        """The tiles that some rows of a view lie in, which are there, with the arrays of these fields."""
        if not 0 <= view < self._manifest.views.count:
            raise DataError(
                f"view {view} is out of range: the cache has views 0 to {self._manifest.views.count - 1}"
            )
        of_rows = self._tiles_of(rows, view // self._manifest.tiling.views)
        self._require_commits(of_rows, f"view {view}")
        self.check_shards(of_rows, list(self._arrays_of(part).values()))
        return of_rows

    def _arrays_of(self, part: Part) -> dict[str, ArraySpec]:
        """The arrays of some fields of the records, by field."""
        arrays = zip(output_arrays(self._manifest, LOGITS), self.layout.fields, strict=True)
        names = self.layout.part(part).dtype.names or ()
        return {field.name: spec for spec, field in arrays if field.name in names}

    def _read_run(
        self,
        view: int,
        run: range,
        of_tiles: list[Tile],
        out: NDArray[np.uint8],
        part: Part = Part.WHOLE,
    ) -> None:
        """Fill ``out`` [n, bytes] with that part of the records of n positions that follow each other."""
        if not run:
            return
        records = out.reshape(-1).view(self.layout.part(part).dtype)
        for name, spec in self._arrays_of(part).items():
            records[name] = self._column(spec, view, run, of_tiles)

    def _column(self, spec: ArraySpec, view: int, run: range, of_rows: list[Tile]) -> NDArray[Any]:
        """A field of consecutive records of a view."""
        first = view // self._manifest.tiling.views if spec.shared else view
        if spec.coded is None:
            return self._guarded(spec, (first, slice(run.start, run.stop)), of_rows)
        cut = self.position_blocks
        whole = cut.spanned(cut.meeting(run))
        stored = self._guarded(spec, (first, slice(whole.start, whole.stop)), of_rows)
        parts = np.split(stored, range(cut.height, len(whole), cut.height))
        try:
            found = np.concatenate([uncoded_block(self.codec, spec, part) for part in parts])
        except FormatError as error:
            raise self._undecodable(spec, of_rows, error) from error
        return found[run.start - whole.start : run.stop - whole.start]

    def gather(self, view: int, rows: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Records uint8 [n, record_bytes] of any rows [n] in their order; only their blocks are read.

        Rows of several positions give their records one after the other, as :meth:`read_rows` does.
        """
        wanted = self.positions.of(self._known(np.asarray(rows, np.int64)))
        out = np.empty((len(wanted), self.record_bytes), np.uint8)
        for block, places in self.position_blocks.split(wanted):
            of_block = self.position_blocks.rows(block)
            out[places] = self.read_positions(view, of_block)[wanted[places] - of_block.start]
        return out

    def _known(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows themselves, where the cache has all of them."""
        last = self._manifest.data.samples - 1
        if rows.size and not (rows.min() >= 0 and rows.max() <= last):
            raise DataError(
                f"rows {rows.min()}-{rows.max()} are out of range: the cache has rows 0 to {last}"
            )
        return rows

    def read_digests(self, rows: range) -> NDArray[np.uint64]:
        """As :attr:`digests`, of consecutive rows only."""
        of_rows = self._tiles_of(rows, group=0)
        self._require_commits(of_rows, "samples/digest")
        spec = digest_array(self._manifest)
        self.check_shards(of_rows, [spec])
        return self._guarded(spec, slice(rows.start, rows.stop), of_rows)

    def _tiles_of(self, rows: range, group: int) -> list[Tile]:
        """The tiles of a view group that the rows lie in."""
        if rows.step != 1 or not 0 <= rows.start <= rows.stop <= self._manifest.data.samples:
            raise DataError(
                f"rows {rows.start}-{rows.stop - 1} are out of range: the cache has rows 0 to "
                f"{self._manifest.data.samples - 1}"
            )
        # Groups are outermost (see `tiles`), so a tile's place follows from its group and block.
        return [self.tiles[group * len(self.blocks) + block] for block in self.blocks.meeting(rows)]

    def decode(self, records: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Packed records uint8 [n, record_bytes] to dense logits float32 [n, C]."""
        return np.asarray(self.codec.decode(self.codec.unpack(records)))

    def stored(self, records: NDArray[np.uint8]) -> Stored:
        """The K classes of packed records uint8 [n, record_bytes], without decoding the others."""
        return self.codec.stored(self.codec.unpack(records))

    def damaged_shards(self) -> Iterator[str]:
        """Keys of shards whose bytes do not match their commit: reads every byte of the cache."""
        for tile, key, shard in self._committed_shards(self.tiles):
            if not self._is_intact(key, shard):
                yield f"{key} ({tile})"

    def check_shards(self, of_tiles: list[Tile] | None = None, specs: list[ArraySpec] | None = None) -> None:
        """Presence and size of committed shards: one that is gone would read as zeros.

        Raises :class:`CorruptCacheError` naming the first shard that is not there or not of its size.
        """
        wanted = list(self._committed_shards(self.tiles if of_tiles is None else of_tiles, specs))
        sizes = object_sizes(self._store, [key for _, key, _ in wanted])
        for (tile, key, shard), size in zip(wanted, sizes, strict=True):
            if size != shard.bytes:
                self._check_same_store()
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

    def _committed_shards(
        self, of_tiles: list[Tile], specs: list[ArraySpec] | None = None
    ) -> Iterator[tuple[Tile, str, Shard]]:
        """(tile, key, what it must be) of the committed shards, all of a tile's arrays unless named."""
        for tile in of_tiles:
            if tile.key in self.commits:
                for spec in tile_arrays(self._manifest, tile) if specs is None else specs:
                    yield tile, spec.shard_key(tile), self.commits[tile.key].shards[spec.path]

    def _require_commits(self, of_tiles: list[Tile], what: str) -> None:
        missing = [tile for tile in of_tiles if tile.key not in self.commits]
        if missing:
            raise IncompleteCacheError(
                f"{self.location}: {what} lacks {len(missing)} tile(s), the first is {missing[0]}; "
                "run the same `kdcache build` command again"
            )

    def _guarded(
        self, spec: ArraySpec, selection: EllipsisType | slice | tuple[int, slice], of_tiles: list[Tile]
    ) -> NDArray[Any]:
        """Read; when the bytes do not decode, find out which tile it was and say so."""
        if spec.path not in self._arrays:
            self._arrays[spec.path] = self._opened(spec, of_tiles)
        try:
            return np.asarray(self._arrays[spec.path][selection])
        except DECODING_ERRORS as error:
            raise self._undecodable(spec, of_tiles, error) from error

    def _opened(self, spec: ArraySpec, of_tiles: list[Tile]) -> zarr.Array[Any]:
        store = CompleteStore(self._store) if of_tiles else self._store
        try:
            return open_array(store, spec, self.location)
        except CorruptCacheError:
            self._check_same_store()
            raise

    def _check_same_store(self) -> None:
        """Raise where the store is away or holds something else by now: then nothing of it is damaged."""
        self.check_reachable()
        self.check_unchanged()

    def _undecodable(self, spec: ArraySpec, of_tiles: list[Tile], error: Exception) -> KDCacheError:
        """What it means that bytes did not decode: each shard is read once more and compared."""
        self._check_same_store()
        shards = list(self._committed_shards(of_tiles, [spec]))
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

    def _is_intact(self, key: str, shard: Shard) -> bool:
        return shard.matches(read_bytes(self._store, key))
