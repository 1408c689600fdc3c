"""Reading a cache: open it, check that it is whole, read pages. Never a wrong number: an error instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.ahead import ahead, batched_by
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs import Part, Ranked, Stored, open_codec
from cache_builder.format.codecs.record import RecordLayout
from cache_builder.format.coded import uncoded_block
from cache_builder.format.commits import INDEX_KEY, REPAIR_INDEX, has_index, identity_bytes
from cache_builder.format.errors import (
    CorruptCacheError,
    DataError,
    FormatError,
    IncompleteCacheError,
)
from cache_builder.format.header_arrays import HeaderArrays
from cache_builder.format.held import HeldStore
from cache_builder.format.ids import SampleIds
from cache_builder.format.layout import (
    ArraySpec,
    Blocks,
    Tile,
    codec_path,
    digest_array,
    output_arrays,
    record_arrays,
    tile_arrays,
)
from cache_builder.format.listing import Listing, can_be_listed, listed
from cache_builder.format.manifest import (
    LOGITS,
    cache_digest,
)
from cache_builder.format.manifest.compare import version_3_path
from cache_builder.format.metadata import groups_of
from cache_builder.format.positions import Positions
from cache_builder.format.root import ROOT_KEY, read_body
from cache_builder.format.statistics import TeacherStatistics, figures
from cache_builder.format.stored_arrays import BATCH_BYTES
from cache_builder.format.stored_ids import StoredIds

_LABELS = "samples/label"


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


class Cache(HeaderArrays):
    """A cache open for reading."""

    @cached_property
    def layout(self) -> RecordLayout:
        """Where each field of a packed record lies."""
        return self._manifest.codec.layout

    @cached_property
    def blocks(self) -> Blocks:
        """Which rows each row block has."""
        return Blocks.of(self._manifest)

    @cached_property
    def position_blocks(self) -> Blocks:
        """Which positions each row block has."""
        return Blocks.of_positions(self._manifest)

    @cached_property
    def codec(self) -> Ranked[Any]:
        """What decodes the records: the manifest's codec with the arrays that the store keeps for it."""
        names = [header.name for header in self._manifest.codec.headers(self._manifest.classes)]
        paths = {name: codec_path(self._manifest, LOGITS, name) for name in names}
        held = self.held_headers([path for path in paths.values() if not self.is_kept(path)])
        arrays = {name: self.header_array(path, held) for name, path in paths.items()}
        return open_codec(self._manifest.codec, self._manifest.classes, arrays.__getitem__)

    @property
    def record_bytes(self) -> int:
        """Bytes of one packed record."""
        return self.layout.record_bytes

    @cached_property
    def ids(self) -> SampleIds:
        """Sample ids in row order."""
        offsets = self.header_array("samples/id_offsets")
        return SampleIds(self.header_array("samples/id_bytes"), offsets)

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
        return self.header_array(_LABELS)

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

    def commits_as_stored(self) -> list[bytes]:
        """The commit objects in tile order; :class:`IncompleteCacheError` when one is missing."""
        self.require_commits(self.tiles, "the cache")
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
            if (
                cache_digest(self.body, map(identity_bytes, self.commits_as_stored()))
                != self._manifest.cache_id
            ):
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

    def labels_of(self, rows: range) -> NDArray[np.int32]:
        """As :attr:`labels`, of consecutive rows only."""
        return self.column(_LABELS).read(rows)

    @cached_property
    def has_labels(self) -> bool:
        """Whether any sample has a label."""
        return any(bool((block >= 0).any()) for block in self.column(_LABELS).blocks())

    @cached_property
    def stored_ids(self) -> StoredIds:
        """As :attr:`ids`, for who looks up a few: they stay in the store."""
        offsets = self.column("samples/id_offsets")
        return StoredIds(self.column("samples/id_bytes"), offsets)

    def header_arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays that are written once, by the paths they have in the newest format version."""
        stored = {version_3_path(path): self.header_array(path) for path in self._manifest.digests}
        return stored | self.names.arrays()

    def array_specs(self) -> list[ArraySpec]:
        """Every array of the store; raises as :meth:`header_array` does."""
        headers = [self.header_spec(path) for path in sorted(self._manifest.digests)]
        known = [spec for spec in headers if spec is not None]
        return [*known, *record_arrays(self._manifest), digest_array(self._manifest)]

    def listing(self) -> Listing:
        """Every object of the store; of a web server, which lists none, those of the cache."""
        return super().listing() if can_be_listed(self._store) else listed(self._store, self.object_keys())

    def object_keys(self) -> list[str]:
        """The objects that a cache has; whether they are there, nobody has looked."""
        specs = self.array_specs()
        metadata = [f"{path}/{ROOT_KEY}" for path in (*groups_of(specs), *(spec.path for spec in specs))]
        headers = [key for spec in specs if not spec.shards for key in spec.chunk_keys()]
        tiles = [tile for tile in self.tiles if tile.key in self.commits]
        shards = [spec.shard_key(tile) for tile in tiles for spec in tile_arrays(self._manifest, tile)]
        commits = [*(tile.key for tile in tiles), INDEX_KEY]
        return list(dict.fromkeys([ROOT_KEY, *metadata, *headers, *shards, *commits]))

    def read_page(self, view: int) -> NDArray[np.uint8]:
        """All records of one view, uint8 [N, record_bytes]: rows in order, fields as FORMAT.md states.

        Of a cache of several positions a sample, those that belong to one, as :meth:`read_rows` gives them.

        Raises :class:`DataError` for a view the cache does not have, :class:`IncompleteCacheError` for one
        that is not wholly written and :class:`CorruptCacheError` naming the tile whose bytes fail a check.
        """
        return self.read_rows(view, range(self._manifest.data.samples))

    def read_rows(
        self,
        view: int,
        rows: range,
        out: NDArray[np.uint8] | None = None,
        held: HeldStore | None = None,
    ) -> NDArray[np.uint8]:
        """As :meth:`read_page`, of consecutive rows only: no tile but those of the rows is looked at.

        ``out``: uint8 [n, record_bytes], contiguous, which is filled and returned. Rows of several positions
        give their records one after the other, ``positions.counts(rows)`` each. ``held``: what
        :meth:`held_tiles` gave of the tiles of the rows; fetched where it is None.
        """
        of_rows = self._readable(view, rows)
        if out is None:
            out = np.empty((self.positions.total(rows), self.record_bytes), np.uint8)
        filled = 0
        for run, of_run, store in self._fetched(view, self.positions.runs(rows), of_rows, Part.WHOLE, held):
            self._read_run(view, run, of_run, out[filled : filled + len(run)], Part.WHOLE, store)
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
        of_rows = self._readable(view, self.blocks.spanned(self.position_blocks.meeting(positions)))
        if out is None:
            out = np.empty((len(positions), self.layout.part(part).record_bytes), np.uint8)
        for run, of_run, store in self._fetched(view, [positions], of_rows, part):
            start = run.start - positions.start
            self._read_run(view, run, of_run, out[start : start + len(run)], part, store)
        return out

    def _readable(self, view: int, rows: range) -> list[Tile]:
        """The tiles that some rows of a view lie in, which are committed."""
        if not 0 <= view < self._manifest.views.count:
            raise DataError(
                f"view {view} is out of range: the cache has views 0 to {self._manifest.views.count - 1}"
            )
        of_rows = self._tiles_of(rows, view // self._manifest.tiling.views)
        self.require_commits(of_rows, f"view {view}")
        return of_rows

    def _fetched(
        self,
        view: int,
        runs: Iterable[range],
        of_tiles: list[Tile],
        part: Part,
        held: HeldStore | None = None,
    ) -> Iterator[tuple[range, list[Tile], HeldStore]]:
        """Runs of positions of a view, cut where there is much to fetch, with their tiles and their bytes.

        What comes next is fetched while somebody decodes.
        """
        specs = list(self._arrays_of(part).values())
        by_block = {tile.block: tile for tile in of_tiles}
        pieces = [piece for run in runs for piece in self._pieces(run, by_block, specs)]
        if held is not None:
            yield from ((run, met, held) for run, met in pieces)
            return
        batches = list(batched_by(pieces, lambda piece: self.size_of(piece[1], specs), BATCH_BYTES))

        def fetched(batch: list[tuple[range, list[Tile]]]) -> HeldStore:
            needed = list({tile: None for _, met in batch for tile in met})
            store = self.held_shards(needed, specs, view)
            if len(batches) == 1:  # else the next batch is fetched already
                self.fetch_ahead(needed, specs, view)
            return store

        for batch, store in zip(batches, ahead(fetched, batches), strict=True):
            yield from ((run, met, store) for run, met in batch)

    def _pieces(
        self, run: range, by_block: dict[int, Tile], specs: list[ArraySpec]
    ) -> Iterator[tuple[range, list[Tile]]]:
        """A run as runs of neighbouring blocks that are fetched together, with their tiles."""
        cut = self.position_blocks
        met = [by_block[block] for block in cut.meeting(run)]
        for part in batched_by(met, lambda tile: self.size_of([tile], specs), BATCH_BYTES):
            spanned = cut.spanned(range(part[0].block, part[-1].block + 1))
            yield range(max(run.start, spanned.start), min(run.stop, spanned.stop)), part

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
        part: Part,
        held: HeldStore,
    ) -> None:
        """Fill ``out`` [n, bytes] with that part of the records of n positions that follow each other."""
        if not run:
            return
        records = out.reshape(-1).view(self.layout.part(part).dtype)
        for name, spec in self._arrays_of(part).items():
            records[name] = self._column(spec, view, run, of_tiles, held)

    def _column(
        self, spec: ArraySpec, view: int, run: range, of_rows: list[Tile], held: HeldStore
    ) -> NDArray[Any]:
        """A field of consecutive records of a view."""
        first = view // self._manifest.tiling.views if spec.shared else view
        if spec.coded is None:
            return self.values_of(spec, (first, slice(run.start, run.stop)), of_rows, held)
        cut = self.position_blocks
        whole = cut.spanned(cut.meeting(run))
        stored = self.values_of(spec, (first, slice(whole.start, whole.stop)), of_rows, held)
        parts = np.split(stored, range(cut.height, len(whole), cut.height))
        try:
            found = np.concatenate([uncoded_block(self.codec, spec, part) for part in parts])
        except FormatError as error:
            raise self.undecodable(spec, of_rows, error) from error
        return found[run.start - whole.start : run.stop - whole.start]

    def gather(self, view: int, rows: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Records uint8 [n, record_bytes] of any rows [n] in their order; only their blocks are read.

        Rows of several positions give their records one after the other, as :meth:`read_rows` does.
        """
        wanted = self.positions.of(self._known(np.asarray(rows, np.int64)))
        out = np.empty((len(wanted), self.record_bytes), np.uint8)
        split = dict(self.position_blocks.split(wanted))
        cut = self.position_blocks
        met = [tile for block in split for tile in self._readable(view, self.blocks.rows(block))]
        for run, of_run, store in self._fetched(view, map(cut.rows, split), met, Part.WHOLE):
            records = np.empty((len(run), self.record_bytes), np.uint8)
            self._read_run(view, run, of_run, records, Part.WHOLE, store)
            places = split[run.start // cut.height]
            out[places] = records[wanted[places] - run.start]
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
        self.require_commits(of_rows, "samples/digest")
        spec = digest_array(self._manifest)
        held = self.held_shards(of_rows, [spec], None)
        return self.values_of(spec, slice(rows.start, rows.stop), of_rows, held)

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
