"""Is the store what was written: manifest, header arrays, commits, every shard, every record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_builder.console.progress import Progress
from cache_builder.format.commits import (
    INDEX_KEY,
    REPAIR,
    REPAIR_INDEX,
    Commit,
    Commits,
    Shard,
    has_damaged_statistics,
    has_index,
    identity_bytes,
    read_commit_bytes,
    read_index,
)
from cache_builder.format.errors import CorruptCacheError, FormatError, StorageError
from cache_builder.format.held import HeldStore
from cache_builder.format.layout import Tile, tile_arrays, tiles
from cache_builder.format.listing import Listing, can_be_listed, listing
from cache_builder.format.locations import is_remote
from cache_builder.format.manifest import Manifest, build_digest, cache_digest, canonical_json, parse_manifest
from cache_builder.format.metadata import metadata_problems
from cache_builder.format.reader import Cache
from cache_builder.format.root import read_body
from cache_builder.format.store import open_store
from cache_builder.verify.report import Check, Outcome, named, ok, skipped
from cache_builder.verify.statistics import StatisticsRecount
from cache_builder.verify.tally import Tally

# Decoded logits in memory at once.
_LOGITS_AT_ONCE = 2**23


class StoreVerifier:
    """Checks one store, as far as what was found allows."""

    def __init__(self, location: str, progress: Progress) -> None:
        """Raises :class:`FormatError` where there is no cache."""
        self.location = location
        self.cache: Cache | None = None
        """The cache, once its manifest has been read."""
        self.cache_id: str | None = None
        """As the manifest states it."""
        self._progress = progress
        self._store = open_store(location, read_only=True)
        self._parsed: Manifest
        self._commits: Mapping[str, Commit] = {}
        self._raw: dict[str, bytes] = {}
        self._known: Listing = {}

    def checks(self) -> Iterator[Check]:
        """All checks, in their order; later ones are left out where they would mean nothing."""
        try:
            body = read_body(self.location)
            if body is None:
                raise FormatError(f"{self.location}: there is no cache here (no zarr.json)")
        except CorruptCacheError as error:
            yield _damaged("manifest", f"{error}; restore zarr.json or rebuild the cache")
            return
        try:
            self._parsed = parse_manifest(body, self.location)
        except FormatError as error:
            yield _damaged("manifest", f"{error}; restore zarr.json or rebuild the cache")
            return
        self.cache_id = self._parsed.cache_id
        self._known = self._listing()
        self._raw = self._commits_as_stored()
        self.cache = Cache(self.location, body, self._index or self._raw, keeps_blocks=False)
        self.cache.keep_headers()
        problems = self._parse_commits()
        yield self._manifest(self.cache, body)
        headers = self._headers(self.cache)
        yield headers
        if headers.failed:
            yield skipped("metadata", "not compared, because header arrays are damaged")
        else:
            yield self._metadata(self.cache)
        if not headers.failed and self._parsed.positions.kind != "one":
            yield self._positions(self.cache)
        yield self._tiles(self.cache, problems)
        is_decoded = not (headers.failed or problems or self._index_is_wrong(self.cache))
        yield from self._read_all(self.cache, is_decoded)

    def _listing(self) -> Listing:
        """What a remote store says of its objects, which spares readings; nothing where it may not say."""
        if not is_remote(self.location) or not can_be_listed(self._store):
            return {}
        try:
            return listing(self._store)
        except StorageError as error:
            if error.waiting_helps:
                raise
            return {}

    def _commits_as_stored(self) -> dict[str, bytes]:
        """The tiles' own commits; one that a listing knows to be what the index says is not read again."""
        indexed = self._index or {}
        sure = {
            key: data
            for key, data in indexed.items()
            if key in self._known and self._known[key].is_certainly(data)
        }
        others = [tile for tile in tiles(self._parsed) if tile.key not in sure]
        return sure | read_commit_bytes(self._store, others)

    @cached_property
    def _index(self) -> dict[str, bytes] | None:
        """What the index of the commits says; None where there is none that can be read."""
        if not has_index(self._parsed):
            return None
        try:
            return read_index(self._store, list(tiles(self._parsed)), self.location)
        except CorruptCacheError:
            return None

    def _parse_commits(self) -> dict[str, str]:
        """Read the commits whatever manifest they belong to; gives what is wrong, by tile key."""
        assert self.cache is not None
        problems: dict[str, str] = {}
        found = self._parsed_commits(self._raw)
        for key in found:
            try:
                found[key]
            except CorruptCacheError as error:
                problems[key] = str(error.__cause__).split("\n")[0]
        whole = {key: data for key, data in self._raw.items() if key not in problems}
        self._commits = self._parsed_commits(whole) if problems else found
        return problems

    def _parsed_commits(self, raw: Mapping[str, bytes]) -> Commits:
        assert self.cache is not None
        return Commits(raw, self.cache.tiles, self._parsed, None, self.location)

    def _manifest(self, cache: Cache, body: dict[str, object]) -> Check:
        manifest = self._parsed
        builds = {commit.build for commit in self._commits.values()}
        if len(builds) == 1 and builds != {build_digest(body)}:
            return _damaged(
                "manifest",
                f"it was changed after the build: it gives build {build_digest(body)}, the commits were "
                f"written for build {builds.pop()}; restore zarr.json",
            )
        if manifest.cache_id is None:
            return ok("manifest", f"format {manifest.format_version}, no cache_id yet")
        if len(self._raw) < len(cache.tiles):
            return ok("manifest", "valid; its cache_id cannot be checked without every commit")
        found = cache_digest(body, [self._identity(tile) for tile in cache.tiles])
        if found != manifest.cache_id:
            return _damaged(
                "manifest",
                f"manifest and commits give cache_id {found}, it says {manifest.cache_id}: zarr.json or a "
                "commit was edited; restore it or rebuild the cache",
            )
        return ok("manifest", f"format {manifest.format_version}, cache_id {manifest.cache_id}")

    def _identity(self, tile: Tile) -> bytes:
        try:
            return identity_bytes(self._raw[tile.key])
        except (ValueError, TypeError):  # damaged JSON: told by the check of the tiles
            return self._raw[tile.key]

    def _headers(self, cache: Cache) -> Check:
        problems = []
        paths = sorted(self._parsed.digests, key=lambda path: (path.endswith("_bytes"), path))
        held = cache.held_headers([path for path in paths if not path.endswith("_bytes")])
        for path in paths:
            try:
                cache.check_header(path, None if path.endswith("_bytes") else held)
            except (CorruptCacheError, FormatError) as error:
                problems.append(f"{path} ({str(error).removeprefix(f'{self.location}: ').split(';')[0]})")
        if problems:
            return _damaged("headers", f"{named(problems)}; restore the files or rebuild the cache")
        return ok("headers", f"{len(paths)} arrays match their digests")

    def _metadata(self, cache: Cache) -> Check:
        """The ``zarr.json`` of every group and array is what the manifest says."""
        specs = cache.array_specs()
        problems = list(metadata_problems(self._store, specs, self._known))
        if problems:
            return _damaged("metadata", f"{named(problems, 3)}; restore the files or rebuild the cache")
        return ok("metadata", f"{len(specs)} arrays and their groups are described as they were written")

    def _positions(self, cache: Cache) -> Check:
        """Every row owns the positions that the specification gives it."""
        if problem := cache.positions.problem():
            return _damaged("positions", f"{problem}; rebuild the cache")
        found = cache.positions.summary(range(self._parsed.data.samples))
        return ok("positions", f"{self._parsed.positions.kind}: {found}", positions=found.total)

    def _tiles(self, cache: Cache, problems: dict[str, str]) -> Check:
        if problems:
            said = named([f"{key}: {problem}" for key, problem in problems.items()], 2)
            return _damaged("tiles", f"damaged commit {said}; {REPAIR}")
        missing = [tile for tile in cache.tiles if tile.key not in self._raw]
        if not missing and self._parsed.cache_id is not None:
            if self._index_is_wrong(cache):
                return _damaged("tiles", f"{INDEX_KEY} is missing or not that of the commits; {REPAIR_INDEX}")
            return ok("tiles", f"all {len(cache.tiles)} are committed", tiles=len(cache.tiles))
        again = "run the same `kdcache build` command again"
        if not missing:
            said = f"all {len(cache.tiles)} are committed, but the cache was never sealed: {again}"
            return Check("tiles", Outcome.UNFINISHED, said)
        said = f"{len(missing)} of {len(cache.tiles)} have no commit"
        if self._parsed.cache_id is None:
            return Check(
                "tiles", Outcome.UNFINISHED, f"{said}: the build has not ended, or this is a part; {again}"
            )
        lost = named([f"{tile.key} ({tile})" for tile in missing], 3)
        return _damaged("tiles", f"{said}, though the cache was finished: {lost}; restore it, or {again}")

    def _index_is_wrong(self, cache: Cache) -> bool:
        """Whether a sealed cache's index does not say what the tiles' own commits say."""
        if not has_index(self._parsed) or len(self._raw) < len(cache.tiles):
            return False
        index = self._index
        return index is None or not all(self._agrees(tile, index[tile.key]) for tile in cache.tiles)

    def _agrees(self, tile: Tile, indexed: bytes) -> bool:
        """Whether the index has a tile's commit; that its statistics are unreadable is another check's."""
        stored = self._raw[tile.key]
        if indexed == canonical_json(json.loads(stored)):
            return True
        is_unreadable = has_damaged_statistics(stored, self._commits[tile.key])
        return is_unreadable and identity_bytes(indexed) == identity_bytes(stored)

    def _read_all(self, cache: Cache, is_decoded: bool) -> Iterator[Check]:
        """Every object that a commit names, read once: its size, its CRC-32, and its records."""
        recount = StatisticsRecount(cache, self._commits, self._raw) if is_decoded else None
        tally = Tally()
        total = sum(tile.key in self._commits for tile in cache.tiles)
        self._progress.start("checking", total, unit="tiles")
        for of_tiles, held in cache.whole_tiles(self._commits):
            tally.compare(self._committed(of_tiles), held, self._owner)
            for tile in of_tiles:
                if recount is not None and not tally.damaged and not tally.odd_beyond_records:
                    self._decode(cache, tile, held, recount, tally)
            tally.tiles += len(of_tiles)
            said = f"{len(tally.damaged)} damaged"
            self._progress.update(tally.tiles, said, last=tally.tiles == total)
        yield tally.shards()
        if recount is None or tally.damaged:
            yield skipped("records", "not decoded, because what they are made of is damaged")
            return
        unread = {row for commit in self._commits.values() for row in commit.invalid_rows}
        yield tally.records(len(unread))
        if recount.is_needed:
            yield recount.check()

    def _owner(self, found: tuple[int, int]) -> str | None:
        """The key of the object that has a size and a CRC-32."""
        return self._owners.get(found)

    @cached_property
    def _owners(self) -> dict[tuple[int, int], str]:
        return {
            (shard.bytes, shard.crc32): key for _, key, shard in self._committed(list(tiles(self._parsed)))
        }

    def _committed(self, of_tiles: list[Tile]) -> Iterator[tuple[Tile, str, Shard]]:
        for tile in of_tiles:
            if tile.key in self._commits:
                for spec in tile_arrays(self._parsed, tile):
                    yield tile, spec.shard_key(tile), self._commits[tile.key].shards[spec.path]

    def _decode(
        self, cache: Cache, tile: Tile, held: HeldStore, recount: StatisticsRecount, tally: Tally
    ) -> None:
        """Every record decodes to finite logits of known classes, but those that are declared invalid."""
        block = max(1, _LOGITS_AT_ONCE // self._parsed.classes)
        invalid = self._commits[tile.key].invalid_rows
        rows = np.repeat(np.array(tile.rows), cache.positions.counts(tile.rows))
        for view in tile.views:
            try:
                records = cache.read_rows(view, tile.rows, held=held)
            except (CorruptCacheError, FormatError) as error:
                tally.odd_beyond_records = str(error)
                return
            for start in range(0, len(records), block):
                part = slice(start, start + block)
                tally.odd += self._odd(cache, view, rows[part], records[part], invalid, recount)
            tally.decoded += len(records)
        recount.finish(tile)

    @staticmethod
    def _odd(
        cache: Cache, view: int, rows: NDArray[np.int64], records: NDArray[np.uint8],
        invalid: Sequence[int], recount: StatisticsRecount,
    ) -> list[str]:  # fmt: skip
        """What is wrong with records, of which ``rows`` says whose each is; a row is named once."""
        try:
            logits = cache.decode(records)
        except FormatError as error:
            return [f"view {view}, rows {rows[0]}-{rows[-1]}: {error}"]
        finite = np.asarray(np.isfinite(logits).all(axis=1))
        recount.add(view, rows, logits, finite)
        expected = ~np.isin(rows, invalid)
        return [
            f"view {view}, row {row} ({cache.stored_ids[row]!r}) is "
            + ("finite, though its row is declared invalid" if row in invalid else "not finite")
            for row in np.unique(rows[finite != expected]).tolist()
        ]


def _damaged(name: str, said: str) -> Check:
    return Check(name, Outcome.DAMAGED, said)
