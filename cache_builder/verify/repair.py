"""``kdcache verify --repair``: a lost or damaged index of the commits is made anew, and nothing else."""

from __future__ import annotations

from cache_builder.format.locks.lock import claimed
from cache_builder.format.root import read_manifest
from cache_builder.format.writer import CacheWriter


def remake_index(location: str) -> str:
    """Make the index anew where it is not what the tiles' commits say; a sentence says what was done.

    It needs no teacher and no data, so that imported caches have it too. Raises :class:`CorruptCacheError`
    where the commits of the tiles do not give the cache_id.
    """
    with claimed(location, doing="repaired") as hold:
        manifest = read_manifest(location)
        if manifest is None:
            return f"{location}: there is no cache here"
        writer = CacheWriter(location, manifest, hold.check)
        if writer.remake_index():
            return "the index of the commits was missing or damaged: it was made anew"
        return "the index of the commits is whole: nothing was written"
