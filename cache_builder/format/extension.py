"""Whether one cache holds everything that another one held: what ``kdcache extend`` makes of a cache does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from cache_builder.format.commits import Shard
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
    return _shards(new, tile) == _shards(old, tile)


def _shards(cache: Cache, tile: Tile) -> frozenset[tuple[str, Shard]]:
    shards = cache.commits[tile.key].shards
    return frozenset((version_3_path(path), shard) for path, shard in shards.items())


class Earlier:
    """Complete caches, found by what a cache that holds one of them must have of it.

    Without it each of n new caches would be compared with each of m earlier ones.
    """

    def __init__(self, caches: Iterable[Cache]) -> None:
        """Raises :class:`CorruptCacheError` for damaged commits."""
        self._caches = list(caches)
        self._by_id: dict[str, list[int]] = defaultdict(list)
        self._by_shards: dict[frozenset[tuple[str, Shard]], list[int]] = defaultdict(list)
        for at, cache in enumerate(self._caches):
            self._by_id[cache.manifest.completed_id].append(at)
            self._by_shards[_shards(cache, cache.tiles[0])].append(at)

    def candidates(self, new: Cache) -> list[Cache]:
        """Those of which :func:`holds_all_of` may be true, in their order: it is false of all others.

        Either a tile of the old cache is another one in ``new``, which then names the old one; or all of its
        tiles are the same, and so is the first.
        """
        said = [at for cache_id in extends(new.manifest) for at in self._by_id.get(cache_id, ())]
        same = self._by_shards.get(_shards(new, new.tiles[0]), ())
        return [self._caches[at] for at in sorted({*said, *same})]
