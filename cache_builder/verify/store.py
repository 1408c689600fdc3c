"""Is the store what was written: manifest, header arrays, commits, every shard, every record."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cache_builder.console.progress import Progress
from cache_builder.format.commits import (
    INDEX_KEY,
    REPAIR,
    REPAIR_INDEX,
    Commit,
    Shard,
    check_commit,
    has_damaged_statistics,
    has_index,
    identity_bytes,
    read_commit_bytes,
    read_index,
)
from cache_builder.format.errors import CorruptCacheError, FormatError
from cache_builder.format.layout import Tile, tile_arrays
from cache_builder.format.manifest import Manifest, build_digest, cache_digest, canonical_json, parse_manifest
from cache_builder.format.metadata import metadata_problems
from cache_builder.format.reader import Cache
from cache_builder.format.root import read_body
from cache_builder.format.store import open_store, read_bytes
from cache_builder.verify.report import Check, Outcome, named, ok, skipped
from cache_builder.verify.statistics import StatisticsRecount

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
        self._commits: dict[str, Commit] = {}
        self._raw: dict[str, bytes] = {}

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
        self.cache, self.cache_id = Cache(self.location, body), self._parsed.cache_id
        self._raw = read_commit_bytes(self._store, self.cache.tiles)
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
        shards = self._shards(self.cache)
        yield shards
        if headers.failed or shards.failed or problems or self._index_is_wrong(self.cache):
            yield skipped("records", "not decoded, because what they are made of is damaged")
        else:
            recount = StatisticsRecount(self.cache, self._commits, self._raw)
            yield self._records(self.cache, recount)
            if recount.is_needed:
                yield recount.check()

    def _parse_commits(self) -> dict[str, str]:
        """Read the commits whatever manifest they belong to; gives what is wrong, by tile key."""
        assert self.cache is not None
        problems = {}
        for tile in self.cache.tiles:
            if tile.key not in self._raw:
                continue
            try:
                commit = Commit.model_validate_json(self._raw[tile.key])
                check_commit(commit, self._parsed, commit.build, tile)
                self._commits[tile.key] = commit
            except (ValidationError, ValueError) as error:
                problems[tile.key] = str(error).split("\n")[0]
        return problems

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
        paths = sorted(self._parsed.digests)
        for path in paths:
            try:
                cache.header_array(path)
            except (CorruptCacheError, FormatError) as error:
                problems.append(f"{path} ({str(error).removeprefix(f'{self.location}: ').split(';')[0]})")
        if problems:
            return _damaged("headers", f"{named(problems)}; restore the files or rebuild the cache")
        return ok("headers", f"{len(paths)} arrays match their digests")

    def _metadata(self, cache: Cache) -> Check:
        """The ``zarr.json`` of every group and array is what the manifest says."""
        specs = cache.array_specs()
        problems = list(metadata_problems(self._store, specs))
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
        try:
            index = read_index(self._store, cache.tiles, self.location)
        except CorruptCacheError:
            return True
        return not all(self._agrees(tile, index[tile.key]) for tile in cache.tiles)

    def _agrees(self, tile: Tile, indexed: bytes) -> bool:
        """Whether the index has a tile's commit; that its statistics are unreadable is another check's."""
        stored = self._raw[tile.key]
        if indexed == canonical_json(json.loads(stored)):
            return True
        is_unreadable = has_damaged_statistics(stored, self._commits[tile.key])
        return is_unreadable and identity_bytes(indexed) == identity_bytes(stored)

    def _shards(self, cache: Cache) -> Check:
        """Size and CRC-32 of every object that a commit names: reads every byte of the cache."""
        wanted = list(self._committed(cache))
        owners = {(shard.bytes, shard.crc32): key for _, key, shard in wanted}
        self._progress.start("checksums", len(wanted), unit="shards")
        problems, size = [], 0
        for done, (tile, key, shard) in enumerate(wanted, start=1):
            data = read_bytes(self._store, key)
            size += len(data or b"")
            problem = _shard_problem(key, data, shard, owners)
            if problem:
                problems.append(f"{key} ({tile}) {problem}")
            self._progress.update(done, f"{len(problems)} damaged", last=done == len(wanted))
        if problems:
            return _damaged("shards", f"{len(problems)} of {len(wanted)}: {named(problems, 3)}; {REPAIR}")
        return ok("shards", f"{len(wanted)} match their checksums, {size / 1e6:.2f} MB", bytes=size)

    def _committed(self, cache: Cache) -> Iterator[tuple[Tile, str, Shard]]:
        for tile in cache.tiles:
            if tile.key in self._commits:
                for spec in tile_arrays(self._parsed, tile):
                    yield tile, spec.shard_key(tile), self._commits[tile.key].shards[spec.path]

    def _records(self, cache: Cache, recount: StatisticsRecount) -> Check:
        """Every record decodes to finite logits of known classes, but those that are declared invalid."""
        block = max(1, _LOGITS_AT_ONCE // self._parsed.classes)
        committed = [tile for tile in cache.tiles if tile.key in self._commits]
        total = sum(len(tile.views) * cache.positions.total(tile.rows) for tile in committed)
        self._progress.start("decoding", total, unit="records")
        problems: list[str] = []
        decoded = 0
        for tile in committed:
            invalid = self._commits[tile.key].invalid_rows
            rows = np.repeat(np.array(tile.rows), cache.positions.counts(tile.rows))
            for view in tile.views:
                try:
                    records = cache.read_rows(view, tile.rows)
                except (CorruptCacheError, FormatError) as error:
                    return _damaged("records", str(error))
                for start in range(0, len(records), block):
                    part = slice(start, start + block)
                    problems += self._odd(cache, view, rows[part], records[part], invalid, recount)
                decoded += len(records)
                self._progress.update(decoded, f"{len(problems)} damaged", last=decoded == total)
            recount.finish(tile)
        if problems:
            return _damaged("records", f"{len(problems)}: {named(problems, 3)}; rebuild the cache")
        unread = {row for commit in self._commits.values() for row in commit.invalid_rows}
        return ok("records", f"{decoded:,} decode to finite logits, {len(unread)} invalid rows as declared")

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
            f"view {view}, row {row} ({cache.ids[row]!r}) is "
            + ("finite, though its row is declared invalid" if row in invalid else "not finite")
            for row in np.unique(rows[finite != expected]).tolist()
        ]


def _shard_problem(
    key: str, data: bytes | None, shard: Shard, owners: dict[tuple[int, int], str]
) -> str | None:
    if data is None:
        return "is missing"
    found = (len(data), zlib.crc32(data))
    if found == (shard.bytes, shard.crc32):
        return None
    owner = owners.get(found)
    if owner is not None and owner != key:
        return f"holds the bytes of {owner}: one was copied over the other"
    if len(data) != shard.bytes:
        return f"has {len(data)} bytes instead of {shard.bytes}"
    return "fails its checksum"


def _damaged(name: str, said: str) -> Check:
    return Check(name, Outcome.DAMAGED, said)
