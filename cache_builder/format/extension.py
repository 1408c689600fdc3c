"""Whether one cache holds everything that another one held: what ``kdcache extend`` makes of a cache does."""

from __future__ import annotations

from cache_builder.format.layout import Tile
from cache_builder.format.manifest import Manifest
from cache_builder.format.manifest.compare import version_3_path
from cache_builder.format.reader import Cache

EXTENDS = "extends"
"""The entry of the manifest's ``environment`` that lists the cache_ids a cache was extended from."""


def extends(manifest: Manifest) -> tuple[str, ...]:
    """The cache_ids whose records a cache says that it holds, the oldest first."""
    return tuple(manifest.environment.get(EXTENDS, "").split())


def line_of(manifest: Manifest) -> str:
    """The entry ``EXTENDS`` of what is made of a cache by extending it."""
    return " ".join((*extends(manifest), manifest.completed_id))


def holds_all_of(new: Cache, old: Cache) -> bool:
    """Whether every record of ``old``, a complete cache, is in ``new`` too, bit by bit and in the same place.

    The commits prove it of every tile that is the same in both. Of a tile that got more views, whose shards
    are others, the word of the extended cache is taken (see :func:`extends`).
    """
    if new.manifest.completed_id == old.manifest.completed_id:
        return True
    if not _same_frame(new.manifest, old.manifest):
        return False
    shared = set(new.tiles)
    said = old.manifest.completed_id in extends(new.manifest)
    return all(_same_shards(new, old, tile) if tile in shared else said for tile in old.tiles)


def _same_frame(new: Manifest, old: Manifest) -> bool:
    """Whether rows, records and views mean the same in both, of which ``new`` may have more views."""
    kept = {"data", "input", "outputs", "positions", "tiling", "invalid_rows"}
    return (
        new.views.count >= old.views.count
        and new.views.model_copy(update={"count": old.views.count}) == old.views
        and new.model_dump(include=kept) == old.model_dump(include=kept)
        and _digests(new) | _digests(old) == _digests(new)
    )


def _digests(manifest: Manifest) -> dict[str, str]:
    """The digests of the header arrays, by the paths of the newest format version.

    Older versions have fewer: names of classes are in their manifest.
    """
    return {version_3_path(path): digest for path, digest in manifest.digests.items()}


def _same_shards(new: Cache, old: Cache, tile: Tile) -> bool:
    ours, theirs = (
        {version_3_path(path): shard for path, shard in cache.commits[tile.key].shards.items()}
        for cache in (new, old)
    )
    return ours == theirs
