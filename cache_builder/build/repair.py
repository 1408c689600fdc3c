"""``--repair``: damaged tiles lose their commit, so that the build writes them anew. Whole ones are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zarr.abc.store import Store

from cache_builder.build.plan import Plan, check_settings
from cache_builder.console.progress import Progress
from cache_builder.format.arrays import open_array
from cache_builder.format.commits import (
    INDEX_KEY,
    has_damaged_statistics,
    has_index,
    index_bytes,
    parse_commit,
    read_commit_bytes,
)
from cache_builder.format.errors import CorruptCacheError
from cache_builder.format.layout import Tile, tile_arrays, tiles
from cache_builder.format.locks.lock import Hold
from cache_builder.format.manifest import Manifest, build_digest
from cache_builder.format.positions import require_one_position
from cache_builder.format.reader import Cache
from cache_builder.format.root import read_body, read_manifest
from cache_builder.format.store import open_store, read_bytes
from cache_builder.format.writer import CacheWriter

_NAMED = 5
_LOOKS = 2
"""Readings that must all differ before a shard counts as damaged: one may have gone wrong on the way."""


def repair(plan: Plan, progress: Progress, hold: Hold) -> None:
    """Take the commits of damaged tiles away, where there is a cache of these settings, and say which."""
    stored = read_manifest(plan.settings.out)
    if stored is not None:
        check_settings(plan, stored)
        damaged = withdraw_damaged(plan.settings.out, hold.check, progress)
        named = "; ".join(map(str, damaged[:_NAMED]))
        progress.say(
            f"{len(damaged)} damaged tile(s) will be written anew: {named}" if damaged else "no damaged tile"
        )


def withdraw_damaged(location: str, check: Callable[[], None], progress: Progress) -> list[Tile]:
    """Take the commits of damaged tiles away, and give those tiles; reads every byte of the cache.

    What no tile holds is looked at too: :class:`CorruptCacheError` where it is damaged; only a copy mends it.
    A cache of several positions a sample is refused, as no build can write its tiles anew.
    ``check`` raises where the right to write was lost. Nothing is touched where there is no cache. Raises
    :class:`StorageError` where the store is out of reach: then nothing is known to be damaged.
    """
    manifest = read_manifest(location)
    if manifest is None:
        return []
    require_one_position(manifest, location, "build --repair")
    body = read_body(location)
    assert body is not None
    damaged = _damaged_tiles(location, manifest, build_digest(body), progress)
    _check_headers(location, manifest, body)
    if index_alone := not damaged and not _index_is_whole(location, manifest):
        progress.say("the index of the commits is damaged: it is made anew")
    if damaged or index_alone:
        writer = CacheWriter(location, manifest, check)
        writer.unseal()  # the build makes the index anew when it seals the cache again
        for tile in damaged:
            writer.withdraw(tile)
    return damaged


def _check_headers(location: str, manifest: Manifest, body: dict[str, Any]) -> None:
    """What no tile holds cannot be computed anew: raise :class:`CorruptCacheError` where it is damaged."""
    cache = Cache(location, body, keeps_blocks=False)
    for path in sorted(manifest.digests):
        cache.header_array(path)
    store = open_store(location, read_only=True)
    for spec in cache.array_specs():
        open_array(store, spec, location)


def _damaged_tiles(location: str, manifest: Manifest, build: str, progress: Progress) -> list[Tile]:
    store, everything = open_store(location, read_only=True), list(tiles(manifest))
    commits = read_commit_bytes(store, everything)
    progress.start("looking for damage", len(everything), unit="tiles")
    damaged = []
    for done, tile in enumerate(everything, 1):
        if tile.key in commits and not _is_whole(store, manifest, build, tile, commits[tile.key]):
            damaged.append(tile)
        progress.update(done, f"{len(damaged)} damaged", last=done == len(everything))
    return damaged


def _index_is_whole(location: str, manifest: Manifest) -> bool:
    """Whether the index says what the tiles' commits say; where there should be none, it does."""
    if not has_index(manifest):
        return True
    store, everything = open_store(location, read_only=True), list(tiles(manifest))
    commits = read_commit_bytes(store, everything)
    if len(commits) < len(everything):
        return False
    return read_bytes(store, INDEX_KEY) == index_bytes(commits[tile.key] for tile in everything)


def _is_whole(store: Store, manifest: Manifest, build: str, tile: Tile, commit: bytes) -> bool:
    try:
        parsed = parse_commit(commit, manifest, build, tile, where="")
    except CorruptCacheError:
        return False
    if has_damaged_statistics(commit, parsed):
        return False
    shards = {spec.shard_key(tile): parsed.shards[spec.path] for spec in tile_arrays(manifest, tile)}
    return all(
        any(shard.matches(read_bytes(store, key)) for _ in range(_LOOKS)) for key, shard in shards.items()
    )
