"""Looks at the places of all served caches from time to time, and serves what lies there by now."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from cache_builder.format import KDCacheError
from logit_server.background import meanwhile
from logit_server.log import tell
from logit_server.looks import FRESH_S, Looks
from logit_server.served_caches import Catalog
from logit_server.shelf import Shelf, Slot

_TRIES = 3
"""Looks at a place that changes again and again, before the next one is waited for."""

logger = logging.getLogger("logit_server")


class Watch:
    """Lives on one event loop, on which alone the shelf changes."""

    def __init__(self, shelf: Shelf, page_bytes: int, look_s: float) -> None:
        self.shelf = shelf
        self.looks = Looks()
        self.publish: Callable[[Catalog], None] = lambda _: None
        """Called with what is served from then on."""
        self._page_bytes = page_bytes
        self._look_s = look_s
        self._troubled: dict[Slot, str] = {}
        self._noticing: dict[Slot, asyncio.Task[None]] = {}
        self._all: asyncio.Task[Mapping[Slot, KDCacheError]] | None = None
        """The last look at all places."""
        self._all_began_s = 0.0

    async def look(self, slot: Slot, *, afresh: bool = False) -> KDCacheError | None:
        """Look at the place of a slot, and serve what is there; gives what is wrong with it.

        ``afresh``: as :meth:`Looks.problem` says.
        """
        found = await self.looks.problem(slot, slot.look, afresh=afresh)
        if slot not in self.shelf.slots:  # it left them meanwhile
            self.forget([slot])
            return found
        self._log(slot, found)
        self.settle(slot)
        return found

    def forget(self, slots: Iterable[Slot]) -> None:
        """Keep nothing of slots that are not served any more."""
        for slot in slots:
            self.looks.forget(slot)
            self._troubled.pop(slot, None)

    async def look_at_all(self) -> Mapping[Slot, KDCacheError]:
        """Look at every place, and serve what is there; gives what is wrong with those where anything is.

        Who asks within a second shares one answer: of a thousand caches, asking each takes many milliseconds.
        """
        now = asyncio.get_running_loop().time()
        if self._all is None or now >= self._all_began_s + FRESH_S:
            self._all, self._all_began_s = asyncio.create_task(self._look_at_each()), now
        return await asyncio.shield(self._all)

    async def _look_at_each(self) -> Mapping[Slot, KDCacheError]:
        slots = list(self.shelf.slots)
        found = await asyncio.gather(*map(self.look, slots))
        return {slot: error for slot, error in zip(slots, found, strict=True) if error is not None}

    def settle(self, slot: Slot) -> None:
        """Serve what the last look found at the place of a slot."""
        if not slot.settle(self._page_bytes):
            return
        served = slot.current.cache_id if slot.current else "nothing"
        former = ", ".join(cache.cache_id for cache in slot.former)
        kept = f"; it holds all of {former}, which stays served by its id" if former else ""
        tell(
            logging.WARNING, "cache_changed", "%s was changed: %r is %s now%s",
            slot.location, slot.name, served, kept,
            cache=slot.name, cache_id=slot.current.cache_id if slot.current else None,
        )  # fmt: skip
        self.publish(self.shelf.catalog())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at all places now and then, for as long as the context lasts."""
        async with meanwhile(self._run(asyncio.get_running_loop())):
            yield

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            for slot in self.shelf.slots:
                if slot.place is not None:  # who reads a block may be the first to notice
                    slot.place.notice = functools.partial(self._noticed, loop, slot)
            await asyncio.sleep(self._look_s)
            try:
                await self.look_at_all()
            except Exception:  # a watch that ended would notice nothing any more
                logger.exception("the places of the caches could not be looked at")

    def _noticed(self, loop: asyncio.AbstractEventLoop, slot: Slot) -> None:
        """Hear from some thread that something changed at a place."""
        loop.call_soon_threadsafe(self._notice, slot)

    def _notice(self, slot: Slot) -> None:
        """Look at a place where something changed: what the new cache needs is computed in a thread."""
        if slot not in self._noticing:
            self._noticing[slot] = asyncio.create_task(self._look_until_settled(slot))

    async def _look_until_settled(self, slot: Slot) -> None:
        try:
            for _ in range(_TRIES):  # a look that went on already may have been too early to see it
                found = await self.look(slot, afresh=True)
                if found is not None or slot.is_settled:
                    return
        finally:
            del self._noticing[slot]

    def _log(self, slot: Slot, found: KDCacheError | None) -> None:
        """Say once what is wrong with a place, and once that it is not any more."""
        said = None if found is None else str(found)
        if said == self._troubled.get(slot):
            return
        self._all = None  # the answer that many share is not true any more
        if said is None:
            del self._troubled[slot]
            text = "cache %r can be served again"
            tell(logging.WARNING, "store_back", text, slot.name, cache=slot.name)
        else:
            self._troubled[slot] = said
            text = "cache %r cannot be read just now: %s"
            tell(logging.ERROR, "store_away", text, slot.name, said, cache=slot.name)
