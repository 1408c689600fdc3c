"""What every request needs: the settings, the caches, the pages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path

from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.types import Scope

from logit_server.access import Access
from logit_server.admission import Admission
from logit_server.background import meanwhile
from logit_server.board import CONNECTIONS, IN_FLIGHT, ROWS, Board, Key
from logit_server.connections import Connections
from logit_server.counters import Counters
from logit_server.indexes import Indexes
from logit_server.page_watch import PageWatch
from logit_server.pages import Pages
from logit_server.preload import Preload
from logit_server.readers import Readers
from logit_server.refusals import Refusals
from logit_server.roster import Roster
from logit_server.served_caches import Catalog, ServedCache
from logit_server.settings import Settings
from logit_server.shelf import Shelf
from logit_server.watch import Watch

PUBLISH_S = 0.1
"""Seconds after which other processes see what was counted of requests."""

SCOPE_KEY = "kdcache.state"
CATALOG_KEY = "kdcache.catalog"
HEAD_KEY = "kdcache.head"
ROUTE_KEY = "kdcache.route"
"""Where the scope has the template of a path that FastAPI did not route."""
ROWS_KEY = "kdcache.rows"
"""Where the scope has how many records were sent."""


@dataclass
class State:
    """The state of one worker. ``pages`` exists while the application runs (its lifespan)."""

    settings: Settings
    catalog: Catalog
    folder: InitVar[Path | None] = None
    """Of the run, where several workers share it."""
    known: InitVar[Shelf | None] = None
    """What is known of the places of the caches; None for nothing but what is served now."""
    access: Access = field(init=False)
    pages: Pages | None = None
    board: InitVar[Board | None] = None
    """Where the processes of the run count."""
    process: InitVar[int] = 0
    """Which of them this is."""
    records_served: int = 0
    """Records that this worker sent or began to send, since it last put them on the board."""
    shelf: Shelf = field(init=False)
    """Where the caches lie, and what was found there."""
    watch: Watch = field(init=False)
    roster: Roster | None = None
    """What the workers of a run know of its caches, while the application runs."""
    catch_up: Callable[[], Awaitable[None]] | None = None
    """Hears of caches that another worker serves already."""
    takers: list[Callable[[Catalog], None]] = field(default_factory=list)
    """Called with every catalog that takes the place of another one."""

    def __post_init__(
        self, folder: Path | None, known: Shelf | None, board: Board | None, process: int
    ) -> None:
        self.counters = Counters(board or Board(()), process)
        self.page_watch = PageWatch(self.counters)
        self.access = Access(self.settings, folder)
        self.shelf = known or Shelf.of(self.catalog)
        self.watch = Watch(self.shelf, self.settings.page_bytes, self.settings.look_s)
        self.watch.publish = self.serve
        self.admission = Admission(self.settings.max_in_flight)
        self.refusals = Refusals(self.counters)
        self.connections = Connections(self.settings, self.refusals)
        self.readers = Readers(self.settings.readers)
        self.indexes = Indexes(self.readers)
        self.preload = Preload(self.settings, self.catalog, [slot.name for slot in self.shelf.slots])
        self.large_bodies = CapacityLimiter(self.settings.max_large_bodies)

    def count_records(self, scope: Scope, count: int) -> None:
        """Note that a request is answered with records."""
        self.records_served += count
        scope[ROWS_KEY] = count

    def serve(self, catalog: Catalog) -> None:
        """Serve these caches from the next request on."""
        self.catalog = catalog
        if self.roster is not None:  # in a thread: the commits of a large cache are megabytes
            asyncio.get_running_loop().run_in_executor(None, self.roster.write, self.shelf)
        for take in self.takers:
            take(catalog)

    @property
    def is_preloaded(self) -> bool:
        """Whether the pages that were to be loaded at start are there."""
        return self.preload.is_done

    @property
    def running_pages(self) -> Pages:
        """The pages, while the application runs."""
        if self.pages is None:
            raise RuntimeError("the application's lifespan has not started: serve it with an ASGI server")
        return self.pages

    @contextlib.asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Put on the board what is counted here, for as long as the context lasts."""
        try:
            async with meanwhile(self._publish_for_ever()):
                yield
        finally:
            self._publish(is_end=True)

    async def totals(self) -> Mapping[Key, float]:
        """What every process of the server counted before this was asked."""
        if self.counters.board.processes > 1:
            await asyncio.sleep(2 * PUBLISH_S)
        self._publish()
        return self.counters.board.totals()

    async def _publish_for_ever(self) -> None:
        while True:
            self._publish()
            await asyncio.sleep(PUBLISH_S)

    def _publish(self, *, is_end: bool = False) -> None:
        records, self.records_served = self.records_served, 0
        self.counters.add(ROWS, records)
        self.counters.put(IN_FLIGHT, self.admission.in_work)
        self.counters.put(CONNECTIONS, len(self.connections))
        self.counters.publish()
        self.refusals.sum_up(is_end=is_end)
        self.page_watch.sum_up(is_end=is_end)


def state_of(request: Request) -> State:
    """The state that the envelope put into the request's scope."""
    state: State = request.scope[SCOPE_KEY]
    return state


def catalog_of(request: Request) -> Catalog:
    """The caches that the sender of a request may know of: answers tell of no others."""
    catalog: Catalog = request.scope[CATALOG_KEY]
    return catalog


def cache_of(request: Request) -> ServedCache:
    """The cache named in the path; :class:`UnknownCacheError` where it is not served."""
    return catalog_of(request).find(request.path_params["name"])


def pages_of(request: Request) -> Pages:
    """The pages of the running application."""
    return state_of(request).running_pages


def is_head(request: Request) -> bool:
    """Whether the client asked for the headers alone (the envelope routes HEAD as GET)."""
    return bool(request.scope.get(HEAD_KEY))
