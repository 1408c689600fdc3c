"""Looks at the places of all served caches from time to time, and serves what lies there by now."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from cache_builder.format import KDCacheError
from logit_server.looks import Looks
from logit_server.served_caches import Catalog
from logit_server.shelf import Shelf, Slot

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
        self._troubled: dict[str, str] = {}

    async def look(self, slot: Slot, *, afresh: bool = False) -> KDCacheError | None:
        """Look at the place of a slot, and serve what is there; gives what is wrong with it.

        ``afresh``: as :meth:`Looks.problem` says.
        """
        found = await self.looks.problem(f"cache {slot.name}", slot.look, afresh=afresh)
        self._log(slot, found)
        self.settle(slot)
        return found

    async def look_at_all(self) -> None:
        """Look at every place, and serve what is there."""
        await asyncio.gather(*map(self.look, list(self.shelf.slots)))

    def settle(self, *slots: Slot) -> None:
        """Serve what was found last at the places of some slots, or of all."""
        changed = [slot for slot in slots or self.shelf.slots if slot.settle(self._page_bytes)]
        for slot in changed:
            served = slot.current.cache_id if slot.current else "nothing"
            former = ", ".join(cache.cache_id for cache in slot.former)
            logger.warning(
                "%s was changed: %r is %s now%s",
                slot.location,
                slot.name,
                served,
                f"; it holds all of {former}, which stays served by its id" if former else "",
            )
        if changed:
            self.publish(self.shelf.catalog())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at all places now and then, for as long as the context lasts."""
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._run(loop))
        try:
            yield
        finally:
            task.cancel()

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        def notice() -> None:
            loop.call_soon_threadsafe(self.settle)

        while True:
            for slot in self.shelf.slots:
                if slot.place is not None:  # who reads a block may be the first to notice
                    slot.place.notice = notice
            await asyncio.sleep(self._look_s)
            try:
                await self.look_at_all()
            except Exception:  # a watch that ended would notice nothing any more
                logger.exception("the places of the caches could not be looked at")

    def _log(self, slot: Slot, found: KDCacheError | None) -> None:
        """Say once what is wrong with a place, and once that it is not any more."""
        said = None if found is None else str(found)
        if said == self._troubled.get(slot.name):
            return
        if said is None:
            del self._troubled[slot.name]
            logger.warning("cache %r can be served again", slot.name)
        else:
            self._troubled[slot.name] = said
            logger.error("cache %r cannot be read just now: %s", slot.name, said)
