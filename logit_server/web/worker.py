"""What the pages of one worker keep between requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor

from starlette.requests import Request

from logit_server.served_caches import Catalog, ServedCache
from logit_server.sources_of_caches import split_name
from logit_server.state import State
from logit_server.web.figures import Figures, measured
from logit_server.web.pictures import Pictures, data_sets
from logit_server.web.top_classes import TopClasses

SMALL = 10_000
"""Samples of a cache whose best classes are found as soon as somebody looks at it."""
_SOON_S = 1.0
"""Seconds that its page waits for them."""


class Web:
    """Plots that were computed, best classes that are looked for, the process that renders pictures."""

    def __init__(self, state: State) -> None:
        """Raises :class:`ConfigError` for data of a cache that is not served."""
        self._data = state.settings.data
        self.pictures = Pictures(data_sets(self._data, state.catalog))
        self._figures: dict[str, Figures] = {}
        self._top: dict[str, TopClasses] = {}
        self._finding: dict[str, Future[None]] = {}
        # One cache at a time, however many are browsed.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="top-classes")

    def take(self, catalog: Catalog) -> None:
        """Show these caches from now on; data of caches that are not served any more is left out."""
        names = {served.name for served in catalog}
        self.pictures.data = data_sets(
            tuple(item for item in self._data if split_name(item)[0] in (None, *names)), catalog
        )
        ids = {served.cache_id for _, served in catalog.items()}
        for gone in set(self._top) - ids:
            self._top[gone].stop()
        for kept in (self._figures, self._top, self._finding):
            for gone in set(kept) - ids:
                del kept[gone]

    def figures(self, served: ServedCache) -> Figures:
        """The numbers of a cache's plots, computed once."""
        if served.cache_id not in self._figures:
            self._figures[served.cache_id] = measured(served)
        return self._figures[served.cache_id]

    def known_top(self, served: ServedCache) -> TopClasses | None:
        """The best classes of a cache, where somebody asked for them already."""
        return self._top.get(served.cache_id)

    def top(self, served: ServedCache) -> TopClasses:
        """The best classes of a cache; finding them begins here, and goes on after a failure."""
        top = self._top.setdefault(served.cache_id, TopClasses(served))
        running = self._finding.get(served.cache_id)
        if not top.is_complete and (running is None or running.done()):
            self._finding[served.cache_id] = self._executor.submit(top.find)
        return top

    async def soon(self, served: ServedCache) -> TopClasses | None:
        """The best classes as far as they are known; those of a small cache are found without being asked."""
        if served.samples > SMALL or not served.has_one_position:
            return self.known_top(served)
        top = self.top(served)
        if not top.is_complete:
            running = asyncio.wrap_future(self._finding[served.cache_id])
            await asyncio.wait([running], timeout=_SOON_S)
        return top

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stop everything when the context ends."""
        try:
            async with self.pictures.running():
                yield
        finally:
            for top in self._top.values():
                top.stop()
            self._executor.shutdown(cancel_futures=True)


def web_of(request: Request) -> Web:
    """The pages' part of the running application."""
    web: Web = request.app.state.web
    return web
