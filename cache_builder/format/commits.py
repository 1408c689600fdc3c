"""Commit objects: a tile is real when its commit exists, and the commit says what its shards must be."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator
from zarr.abc.store import Store

from cache_builder.format.errors import CorruptCacheError
from cache_builder.format.frozen import Frozen
from cache_builder.format.layout import Tile, tile_arrays
from cache_builder.format.manifest import Manifest, canonical_json
from cache_builder.format.statistics import TileStatistics
from cache_builder.format.store import read_many

REPAIR = "restore the file, or run the same `kdcache build` command with --repair: it writes that tile anew"
"""What to do about a damaged tile: nothing is to be deleted by hand, least of all what is whole."""

INDEX_KEY = "commits/index"
"""Store key of the object that holds all commits of a sealed cache."""
REPAIR_INDEX = (
    "restore the file, or run `kdcache verify CACHE` with --repair: it makes the index anew from the commits "
    "of the tiles"
)

_Bytes = bytes  # by another name, where a field has this one


class Shard(Frozen):
    """What one stored object must be."""

    bytes: int = Field(gt=0)
    """Size of the object."""
    crc32: int = Field(ge=0, lt=2**32)
    """CRC-32 (the zlib one) of all its bytes."""

    @classmethod
    def of(cls, data: _Bytes) -> Shard:
        """What an object of these bytes must be."""
        return cls(bytes=len(data), crc32=zlib.crc32(data))

    def matches(self, data: _Bytes | None) -> bool:
        """Whether an object is what it must be; None, which is no object, is not."""
        return data is not None and len(data) == self.bytes and zlib.crc32(data) == self.crc32


class Commit(Frozen):
    """The JSON object under ``commits/`` that makes a tile real."""

    build: str
    """The manifest's ``build_digest``: a tile of another build does not belong here."""
    tile: tuple[int, int]
    """(view group, row block)."""
    views: tuple[int, int]
    """First view of the tile and the one after its last."""
    rows: tuple[int, int]
    """First row of the tile and the one after its last."""
    count: int
    """Records in the tile."""
    invalid_rows: tuple[int, ...]
    """Rows of the tile that could not be read, ascending."""
    shards: dict[str, Shard]
    """Array path to what this tile's object of that array must be."""
    statistics: TileStatistics | None = None
    """What the teacher did on the tile's views. None, and absent in the object, where nobody measured it."""

    @field_validator("statistics", mode="wrap")
    @classmethod
    def _readable(cls, value: object, handler: ValidatorFunctionWrapHandler) -> object:
        """Damaged statistics, or another release's, are none: no record needs them."""
        try:
            return handler(value)
        except ValidationError:
            return None

    def to_bytes(self) -> bytes:
        """The object as it is stored."""
        without = {"statistics"} if self.statistics is None else None
        return canonical_json(self.model_dump(mode="json", exclude=without))


def make_commit(
    manifest: Manifest,
    build: str,
    tile: Tile,
    invalid_rows: Iterable[int],
    shards: dict[str, Shard],
    statistics: TileStatistics | None = None,
) -> Commit:
    """The commit of a tile; raises :class:`ValueError` when the parts do not fit the tile."""
    commit = Commit(
        build=build,
        tile=(tile.group, tile.block),
        views=(tile.view_start, tile.view_stop),
        rows=(tile.row_start, tile.row_stop),
        count=tile.count,
        invalid_rows=tuple(sorted(invalid_rows)),
        shards=shards,
        statistics=statistics,
    )
    check_commit(commit, manifest, build, tile)
    return commit


def parse_commit(data: bytes, manifest: Manifest, build: str | None, tile: Tile, where: str) -> Commit:
    """Validate stored bytes; ``where`` names the store in the :class:`CorruptCacheError`.

    ``build``: the one that it must be of; None = any.
    """
    try:
        commit = Commit.model_validate_json(data)
        check_commit(commit, manifest, commit.build if build is None else build, tile)
    except (ValidationError, ValueError) as error:
        raise CorruptCacheError(
            f"{where}: {tile.key} ({tile}) is damaged or of another build: {error}; {REPAIR}"
        ) from error
    return commit


class Commits(Mapping[str, Commit]):
    """The commits of a store by tile key, parsed when looked at: objects take ten times their bytes."""

    def __init__(
        self,
        stored: Mapping[str, bytes],
        tiles: Iterable[Tile],
        manifest: Manifest,
        build: str | None,
        where: str,
    ) -> None:
        """``stored``: the objects by tile key. The others as :func:`parse_commit` takes them."""
        self._stored = stored
        self._tiles = {tile.key: tile for tile in tiles if tile.key in stored}
        self._manifest, self._build, self._where = manifest, build, where
        self._parsed: dict[str, Commit] = {}

    def __getitem__(self, key: str) -> Commit:
        found = self._parsed.get(key)
        if found is None:
            tile = self._tiles[key]
            found = parse_commit(self._stored[key], self._manifest, self._build, tile, self._where)
            if len(self._parsed) >= _PARSED:
                self._parsed.clear()
            self._parsed[key] = found
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._tiles

    def __iter__(self) -> Iterator[str]:
        return iter(self._tiles)

    def __len__(self) -> int:
        return len(self._tiles)

    def check(self) -> None:
        """Raise :class:`CorruptCacheError` for one that is damaged."""
        for key in self:
            self[key]
        self._parsed.clear()


_PARSED = 512
"""Commits that are kept parsed: more than a view of most caches has tiles."""


def has_damaged_statistics(data: bytes, commit: Commit) -> bool:
    """Whether a commit, parsed from ``data``, was stored with statistics that cannot be read any more."""
    return commit.statistics is None and json.loads(data).get("statistics") is not None


def check_commit(commit: Commit, manifest: Manifest, build: str, tile: Tile) -> None:
    """Raise :class:`ValueError` unless the commit describes exactly this tile of this build."""
    if commit.build != build:
        raise ValueError(f"it belongs to build {commit.build}, expected {build}")
    found = (*commit.tile, *commit.views, *commit.rows, commit.count)
    expected = (
        *(tile.group, tile.block, tile.view_start, tile.view_stop),
        *(tile.row_start, tile.row_stop, tile.count),
    )
    if found != expected:
        raise ValueError(f"it describes {found}, expected {expected}")
    paths = {spec.path for spec in tile_arrays(manifest, tile)}
    if set(commit.shards) != paths:
        raise ValueError(f"it names the arrays {sorted(commit.shards)}, expected {sorted(paths)}")
    stray = [row for row in commit.invalid_rows if row not in tile.rows]
    if stray or list(commit.invalid_rows) != sorted(set(commit.invalid_rows)):
        raise ValueError(f"its invalid rows are not ascending rows of the tile: {commit.invalid_rows[:5]}")


def read_commit_bytes(store: Store, tiles: list[Tile]) -> dict[str, bytes]:
    """The commit objects that exist, by tile key."""
    found = read_many(store, [tile.key for tile in tiles])
    return {tile.key: data for tile, data in zip(tiles, found, strict=True) if data is not None}


def index_bytes(commits: Iterable[bytes]) -> bytes:
    """The one object of a sealed cache that holds all commits; ``commits``: their bytes, in tile order."""
    # The canonical JSON of the whole, without all commits as objects, which take ten times their bytes.
    return b"%s%s]}" % (_INDEX_BEGIN, b",".join(canonical_json(json.loads(commit)) for commit in commits))


_INDEX_BEGIN = b'{"commits":['


def has_index(manifest: Manifest) -> bool:
    """Whether the store has an index: sealed caches, since format version 3."""
    return manifest.cache_id is not None and manifest.format_version >= _INDEX_SINCE


_INDEX_SINCE = 3


def read_index(store: Store, tiles: list[Tile], where: str) -> dict[str, bytes]:
    """The commits of a sealed cache by tile key, from one object.

    Raises :class:`CorruptCacheError` where that is missing or is none; ``where`` names the store.
    """
    data = read_many(store, [INDEX_KEY])[0]
    try:
        if data is None:
            raise ValueError("it is missing")
        commits = list(map(canonical_json, _indexed(data)))
        if len(commits) != len(tiles):
            raise ValueError(f"it holds {len(commits)} commits, expected {len(tiles)}")
        return {tile.key: commit for tile, commit in zip(tiles, commits, strict=True)}
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptCacheError(f"{where}: {INDEX_KEY} is damaged: {error}; {REPAIR_INDEX}") from error


def _indexed(data: bytes) -> Iterator[object]:
    """The commits of an index, one at a time."""
    if not (data.startswith(_INDEX_BEGIN) and data.endswith(b"]}")):
        yield from json.loads(data)["commits"]  # of another writer, who may use spaces
        return
    text, place = data.decode(), len(_INDEX_BEGIN)
    while not text.startswith("]}", place):
        commit, place = _JSON.raw_decode(text, place)
        yield commit
        if text.startswith(",{", place):
            place += 1
        elif not text.startswith("]}", place):
            raise ValueError(f"expected a comma or its end at character {place}")
    if place + 2 != len(text):
        raise ValueError(f"something follows its end at character {place + 2}")


_JSON = json.JSONDecoder()


def identity_bytes(commit: bytes) -> bytes:
    """What the cache_id takes of a commit object: its bytes, without the statistics where it has any.

    Records that are equal have one cache_id, whether or not somebody measured the teacher beside them.
    """
    body = json.loads(commit)
    if "statistics" not in body:
        return commit
    del body["statistics"]
    return canonical_json(body)
