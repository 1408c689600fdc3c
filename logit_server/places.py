"""Where a cache lies: what lies there now, and whether it still has the records that were there before."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from cache_builder.format import (
    Cache,
    CorruptCacheError,
    FormatError,
    IncompleteCacheError,
    StorageError,
    open_cache,
)
from cache_builder.format.extension import holds_all_of
from cache_builder.format.locations import is_remote, local_path
from cache_builder.format.root import ROOT_KEY, body_of, read_root
from cache_builder.format.waiting import patience_at_most
from logit_server.errors import ReplacedCacheError

_TRIES = 3
"""Reads of something that changes meanwhile, before that is said."""

_STORE_PATIENCE_S = 2.0
"""How long a request to a remote store is repeated while a client of ours waits, who can try again too."""

Stamp = tuple[int, ...]

_T = TypeVar("_T")


class Place:
    """A location that a cache was opened at. Used from several threads.

    What is read here is of one cache: the place is looked at after every read, and what was read while it
    changed is thrown away.
    """

    def __init__(self, cache: Cache) -> None:
        """``cache``: as it was opened at the location."""
        self.location = cache.location
        self.now = cache
        """What was opened here last."""
        self.lost: ReplacedCacheError | None = None
        """Why nothing here can be served any more, where something else lies here by now."""
        self.notice: Callable[[], None] = lambda: None
        """Called from some thread when ``now`` or ``lost`` changed."""
        self._folder = None if is_remote(self.location) else local_path(self.location)
        self._root: bytes | None = None
        self._stamp: Stamp | None = None
        self._lock = threading.Lock()
        self._holds: dict[tuple[str, str], bool] = {}
        """Whether the first holds the records of the second, by cache_id."""

    def look(self, *, reads: bool = False) -> Cache:
        """What lies here now, opened where it is another cache than before.

        ``reads``: also where nothing seems to have changed, since a network file system may answer from what
        it remembers, and its server be gone.

        Raises :class:`StorageError` where nothing answers or a build is at work, :class:`CorruptCacheError`
        for a damaged manifest, :class:`ReplacedCacheError` where something else than a cache lies here.
        """
        with self._lock:
            # Before the root is read: what changes in between is looked at the next time.
            stamp = self._current_stamp()
            if reads or stamp is None or stamp != self._stamp:
                self._compare_root()
                self._stamp = stamp
            return self.now

    def holds(self, cache: Cache) -> bool:
        """Whether what was opened here last has all records of a cache that was opened here before."""
        return self.in_one(self.now, cache) and self.lost is None

    def in_one(self, new: Cache, cache: Cache) -> bool:
        """Whether one of the caches that were opened here has all records of another one."""
        pair = new.manifest.completed_id, cache.manifest.completed_id
        if pair not in self._holds:
            self._holds[pair] = holds_all_of(new, cache)
        return self._holds[pair]

    def read(self, cache: Cache, read: Callable[[Cache], _T], *, as_it_was: bool = False) -> _T:
        """What ``read`` gives of the cache that has the records of ``cache`` now.

        ``as_it_was``: only of ``cache`` itself, not of one that holds its records too. Raises what ``read``
        raises, what :meth:`look` raises, and :class:`ReplacedCacheError` where another cache lies here.
        """
        for _ in range(_TRIES):
            source, stamp = self._source(cache, as_it_was), self._stamp
            try:
                with patience_at_most(_STORE_PATIENCE_S):
                    found = read(source)
            except (CorruptCacheError, IncompleteCacheError):
                if self.look() is source and stamp == self._stamp:
                    raise
                continue
            if self.look() is source and stamp == self._stamp:
                return found
        raise StorageError(f"{self.location} changes while it is read; try again")

    def _source(self, cache: Cache, as_it_was: bool) -> Cache:
        """What has the records of a cache, as far as is known: whether that is true shows after the read."""
        source, is_known = self.now, self._folder is None or self._stamp is not None
        if is_known and self._has(source, cache, as_it_was):
            return source
        source = self.look()
        if not self._has(source, cache, as_it_was):
            raise ReplacedCacheError(
                f"{self.location} holds cache {source.manifest.cache_id} by now, which has not the records "
                f"of {cache.manifest.cache_id}: it was replaced. Put the old one back to go on with it, or "
                "take the new one by its name"
            )
        return source

    def _has(self, source: Cache, cache: Cache, as_it_was: bool) -> bool:
        if as_it_was:
            return self.lost is None and source.manifest.cache_id == cache.manifest.cache_id
        return self.holds(cache)

    def _compare_root(self) -> None:
        with patience_at_most(_STORE_PATIENCE_S):
            raw = read_root(self.location)
        if raw is None:
            raise _out_of_reach(self.location)
        if raw == self._root:
            return
        try:
            body = body_of(raw, self.location)
            if body != self.now.body or self.lost is not None:
                self._change(opened(self.location))
        except FormatError as error:
            was_lost, self._root = self.lost is not None, None
            self.lost = ReplacedCacheError(
                f"{self.location} holds something else by now ({error}); put the cache back"
            )
            if not was_lost:
                self._noticed()
            raise self.lost from error
        self._root = raw

    def _change(self, cache: Cache) -> None:
        is_another = cache.body != self.now.body
        self.lost = None
        if is_another:
            self.now = cache
        self._noticed()

    def _noticed(self) -> None:
        # The event loop that is to notice may be closed already.
        with contextlib.suppress(RuntimeError):
            self.notice()

    def _current_stamp(self) -> Stamp | None:
        """What changes whenever a local folder is renamed, exchanged or mounted over; None if not known."""
        if self._folder is None:
            return None
        try:
            found = [self._folder.stat(), (self._folder / ROOT_KEY).stat()]
        except OSError:
            return None
        return tuple(n for s in found for n in (s.st_dev, s.st_ino, s.st_ctime_ns, s.st_size))


def opened(location: str) -> Cache:
    """A complete cache with everything read that requests need of it, so that damage shows here.

    Raises what :func:`open_cache` does, but :class:`StorageError` where nothing is there and for a cache that
    is not complete: whoever writes it will be done with it some time.
    """
    if read_root(location) is None:
        raise _out_of_reach(location)
    try:
        cache = open_cache(location)
        touch(cache)
    except IncompleteCacheError as error:
        raise StorageError(f"{location} is being written just now: {error}") from error
    return cache


def _out_of_reach(location: str) -> StorageError:
    return StorageError(
        f"{location} is out of reach: nothing is there any more. Was it unmounted, renamed or removed? It is "
        "served again as soon as it is back"
    )


def touch(cache: Cache) -> None:
    """Read what requests need of a cache beside its records; raises :class:`CorruptCacheError`."""
    _ = (cache.ids, cache.labels, cache.names, cache.codec, cache.positions)
