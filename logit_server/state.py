"""What every request needs: the settings, the caches, the pages."""

from __future__ import annotations

import asyncio
from dataclasses import InitVar, dataclass, field
from pathlib import Path

from anyio import CapacityLimiter
from starlette.requests import Request

from logit_server.access import Access
from logit_server.admission import Admission
from logit_server.connections import Connections
from logit_server.indexes import Indexes
from logit_server.pages import Pages
from logit_server.preload import Preload
from logit_server.readers import Readers
from logit_server.served_caches import Catalog, ServedCache
from logit_server.settings import Settings

SCOPE_KEY = "kdcache.state"
CATALOG_KEY = "kdcache.catalog"
HEAD_KEY = "kdcache.head"


@dataclass
class State:
    """The state of one worker. ``pages`` exists while the application runs (its lifespan)."""

    settings: Settings
    catalog: Catalog
    folder: InitVar[Path | None] = None
    """Of the run, where several workers share it."""
    access: Access = field(init=False)
    pages: Pages | None = None
    records_served: int = 0
    """Records that this worker sent or began to send."""
    look: asyncio.Task[None] | None = None
    """At the stores, begun last (see ``/readyz``)."""

    def __post_init__(self, folder: Path | None) -> None:
        self.access = Access(self.settings, folder)
        self.admission = Admission(self.settings.max_in_flight)
        self.connections = Connections(self.settings)
        self.readers = Readers(self.settings.readers)
        self.indexes = Indexes(self.readers)
        self.preload = Preload(self.settings, self.catalog)
        self.large_bodies = CapacityLimiter(self.settings.max_large_bodies)

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
