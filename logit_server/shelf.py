"""What a server serves under which name, as the places where the caches lie are looked at again and again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cache_builder.format import Cache, ConfigError, KDCacheError, open_cache
from cache_builder.format.extension import Earlier
from logit_server.errors import ReplacedCacheError
from logit_server.places import Place, opened, touch
from logit_server.served_caches import Catalog, Missing, ServedCache
from logit_server.settings import Settings
from logit_server.sources_of_caches import Source, sources

logger = logging.getLogger("logit_server")

_GENERATIONS = 16
"""cache_ids that a place is known to have held, and caches that one which lies there still holds."""
_APART = 4
"""Caches that were at a place, and that what lies there does not hold: they are kept for when it is back."""


@dataclass(frozen=True)
class _Found:
    """What a look found at a place, with everything that takes long computed."""

    served: ServedCache
    held: frozenset[str]
    """The cache_ids of those before it whose records it holds."""


@dataclass(eq=False)
class Slot:
    """A name of the server, with the place where its cache lies and the caches that were found there."""

    name: str
    location: str
    current: ServedCache | None = None
    """What the name stands for. It stays while its store is away: pages in memory are served on."""
    former: list[ServedCache] = field(default_factory=list)
    """Caches that were here before, and whose records the current one holds."""
    apart: list[ServedCache] = field(default_factory=list)
    """Caches that were here before, and whose records the current one does not hold."""
    known: list[str] = field(default_factory=list)
    """Every cache_id that was here."""
    missing: Missing | None = None
    """Why nothing has the name, where ``current`` is None."""
    place: Place | None = None
    _found: _Found | None = None

    @classmethod
    def of(cls, served: ServedCache) -> Slot:
        """The slot of a cache that is open already."""
        return cls(served.name, served.cache.location, served, known=[served.cache_id], place=served.place)

    def look(self) -> None:
        """Look what lies at the place: from a thread, and never twice at once.

        Raises what :meth:`Place.look` raises. What is there by now is served from the next :meth:`settle` on.
        """
        if self.place is None:
            self.place = Place(opened(self.location))
        place = self.place
        place.look(reads=True)
        if not self.is_settled:
            self._found = self._found_at(place)

    @property
    def is_settled(self) -> bool:
        """Whether nothing lies at the place that :meth:`look` has not seen."""
        return self.place is None or (self._found is not None and self._found.served.cache is self.place.now)

    def _found_at(self, place: Place) -> _Found:
        """What lies at the place. Of large caches it takes a while, so it is done while no request waits."""
        now = place.now
        served = ServedCache(self.name, now, now.manifest.completed_id, place)
        _ = (served.manifest_json, served.stored_bytes)
        held = frozenset(one.cache_id for one in self.caches() if place.in_one(now, one.cache))
        return _Found(served, held)

    def settle(self, page_bytes: int) -> bool:
        """Take what the last look found at the place; gives whether anything is another than before."""
        if self.place is not None and self.place.lost is not None:
            return self._lose()
        if self._found is None:
            return False
        served = self._found.served
        if served.block_bytes > page_bytes:
            return self._lose()
        if self.current is not None and self.current.cache_id == served.cache_id:
            return False
        self._take(served, self._found.held)
        return True

    def _take(self, served: ServedCache, held: frozenset[str]) -> None:
        before = [one for one in self.caches() if one.cache_id != served.cache_id]
        self.former = [one for one in before if one.cache_id in held][-_GENERATIONS:]
        self.apart = [one for one in before if one.cache_id not in held][-_APART:]
        self.current, self.missing = served, None
        self.known = [*(known for known in self.known if known != served.cache_id), served.cache_id]
        self.known = self.known[-_GENERATIONS:]

    def succeed(self, earlier: Earlier) -> None:
        """Go on with those of earlier caches whose records lie here by now: somebody moved them."""
        if self.current is None:
            return
        for cache in earlier.candidates(self.current.cache):
            with contextlib.suppress(KDCacheError, OSError):
                keys = (tile.key for tile in cache.tiles)
                self.inherit(cache.body, dict(zip(keys, cache.commits_as_stored(), strict=True)))

    def inherit(self, body: dict[str, Any], commits: dict[str, bytes]) -> None:
        """Serve by its id, too, a cache that was served before, if what lies here holds its records."""
        here = {served.cache_id for served in (self.current, *self.former) if served is not None}
        with contextlib.suppress(KDCacheError, OSError):
            cache = Cache(self.location, body, commits)
            cache_id = cache.manifest.completed_id
            if self.place is None or cache_id in here or not self.place.holds(cache):
                return
            touch(cache)
            self.former.append(ServedCache(self.name, cache, cache_id, self.place))
            if cache_id not in self.known:
                self.known.insert(0, cache_id)

    def _lose(self) -> bool:
        was_served = self.current is not None
        self.apart = self.caches()[-_GENERATIONS:]
        self.current, self.former = None, []
        self.missing = Missing(
            self.name,
            ReplacedCacheError,
            f"where cache {self.name!r} was lies something else by now, which this server cannot serve; put "
            "the cache back",
        )
        return was_served

    def caches(self) -> list[ServedCache]:
        """All caches that are known to have been here, the oldest first."""
        return [*self.apart, *self.former, *([self.current] if self.current else [])]

    def missing_ids(self) -> Iterator[tuple[str, Missing]]:
        """The keys by which something was found here once, and is not now, and what to say of each."""
        here = {cache.cache_id for cache in (self.current, *self.former) if cache is not None}
        for cache_id in self.known:
            if cache_id not in here:
                yield cache_id, self.missing or self._replaced(cache_id)
        if self.missing is not None:
            yield self.name, self.missing

    def _replaced(self, cache_id: str) -> Missing:
        now = self.current.cache_id if self.current else "none"
        return Missing(
            self.name,
            ReplacedCacheError,
            f"cache {cache_id} was replaced where it lay, and {self.name!r} is cache {now} by now: put the "
            "old one back to go on with it, or begin anew with the new one by its name",
        )


class NameTakenError(ConfigError):
    """Two caches would have one name on this server."""

    def __init__(self, slot: Slot, other: Slot) -> None:
        super().__init__(
            f"{slot.location} and {other.location} would both be served as {slot.name!r}; give one "
            f"another name: NAME={slot.location}"
        )
        self.public = (
            f"its name {slot.name!r} is that of another cache of this server, or of its cache_ids: put NAME= "
            "before its path, with another name"
        )
        """The same for clients: without the places where the caches lie."""


Spare = Callable[[Source], Slot | None]
"""What stands in for a cache that cannot be opened: None for nothing."""


class Shelf:
    """All slots of a server. Changed on the event loop alone."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self.slots = list(slots)

    @classmethod
    def of(cls, catalog: Catalog) -> Shelf:
        """The slots of caches that are open already."""
        return cls(map(Slot.of, catalog))

    def catalog(self) -> Catalog:
        """What is served."""
        return Catalog(
            [slot.current for slot in self.slots if slot.current is not None],
            [cache for slot in self.slots for cache in slot.former],
            {key: missing for slot in self.slots for key, missing in slot.missing_ids()},
        )

    def drop(self, slots: Iterable[Slot]) -> None:
        """Serve some no longer."""
        dropped = set(slots)
        self.slots = [slot for slot in self.slots if slot not in dropped]

    def add(self, slot: Slot, leaving: Iterable[Slot] = ()) -> Slot | None:
        """Serve one more, at once in place of the one of ``leaving`` that has its name; gives that one.

        Raises :class:`NameTakenError` where one that stays has its name already.
        """
        left = set(leaving)
        for other in self.slots:
            if other not in left and (
                slot.name == other.name or slot.name in other.known or other.name in slot.known
            ):
                raise NameTakenError(slot, other)
        before = next((other for other in left if other.name == slot.name), None)
        if before is None:
            self.slots = [*self.slots, slot]
            return None
        slot.known = [*(one for one in before.known if one not in slot.known), *slot.known][-_GENERATIONS:]
        self.slots = [slot if other is before else other for other in self.slots]
        return before


def open_catalog(settings: Settings) -> Catalog:
    """Open every cache of the settings; see :func:`open_shelf`."""
    return open_shelf(settings).catalog()


def open_shelf(settings: Settings, spare: Spare | None = None) -> Shelf:
    """Open every cache of the settings and read its header arrays.

    A cache of a folder of caches that cannot be opened is left out; the log says why. ``spare`` is asked
    first for what stands in for one that cannot be opened.

    Raises :class:`ConfigError` for settings that do not fit together, and what :func:`open_cache` raises for
    a cache that is missing, incomplete, damaged or of an unknown version.
    """
    if not settings.caches:
        raise ConfigError("there is no cache to serve: name one (`kdcache serve PATH`) or set KDCACHE_CACHES")
    shelf = Shelf(())
    for source in sources(settings.caches):
        try:
            shelf.add(open_slot(source, settings.page_bytes))
        except KDCacheError as error:
            found = spare(source) if spare is not None else None
            if found is None and source.folder is None:
                raise
            if found is None:
                logger.warning("left out of what is served: %s", error)
            else:
                shelf.add(found)
    if not shelf.slots:
        raise ConfigError(f"there is no cache that can be served in {', '.join(settings.caches)}")
    return shelf


def open_slot(source: Source, page_bytes: int) -> Slot:
    """Open the cache of a source.

    Raises what :func:`open_cache` raises, and :class:`ConfigError` where pages cannot hold one of its blocks.
    """
    cache = open_cache(source.location)
    touch(cache)
    served = ServedCache(source.name or cache.manifest.name, cache, cache.manifest.completed_id)
    # Touched here so that damage stops the start instead of a request.
    _ = (served.manifest_json, served.stored_bytes)
    if served.block_bytes > page_bytes:
        raise ConfigError(
            f"one block of cache {served.name!r} takes {served.block_bytes:,} bytes, more than the "
            f"budget of {int(page_bytes):,}; raise page_bytes (KDCACHE_PAGE_BYTES)"
        )
    return Slot.of(served)
