"""Loading the pages of caches at start, so that no request waits for them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable

from cache_builder.format import ConfigError, KDCacheError
from logit_server.background import meanwhile
from logit_server.pages import Pages
from logit_server.served_caches import Catalog, ServedCache
from logit_server.settings import Settings

ALL = "all"

logger = logging.getLogger("logit_server")


class Preload:
    """What is loaded at start, and whether it is there."""

    def __init__(self, settings: Settings, catalog: Catalog, listed: Iterable[str] = ()) -> None:
        """``listed``: names of caches that are away just now, and are left.

        Raises :class:`ConfigError` for names that are not served, and for more than the budget holds.
        """
        self.caches = _chosen(settings.preload, catalog, set(listed))
        self.is_done = not self.caches
        """Whether everything has been loaded, or cannot be: the log says why."""
        total = sum(served.views * served.blocks.samples * served.record_bytes for served in self.caches)
        if total > settings.page_bytes:
            raise ConfigError(
                f"the pages to preload take {total:,} bytes, more than the budget of "
                f"{int(settings.page_bytes):,}; raise page_bytes (KDCACHE_PAGE_BYTES) or preload less"
            )

    @contextlib.asynccontextmanager
    async def running(self, pages: Pages) -> AsyncIterator[None]:
        """Load while the context lasts."""
        async with meanwhile(self._load_all(pages)):
            yield

    async def _load_all(self, pages: Pages) -> None:
        for served in self.caches:
            try:
                await _load(pages, served)
            except KDCacheError as error:
                # Requests for the other views and caches can be answered.
                logger.error("preloading cache %r ended: %s", served.name, error)
        self.is_done = True


async def _load(pages: Pages, served: ServedCache) -> None:
    begun = time.monotonic()
    for view in range(served.views):
        await pages.load(served, view)
        logger.info(
            "preloaded view %d of cache %r, %d of %d, after %.1f s",
            view, served.name, view + 1, served.views, time.monotonic() - begun,
        )  # fmt: skip


def _chosen(names: tuple[str, ...], catalog: Catalog, listed: set[str]) -> list[ServedCache]:
    if ALL in names:
        return list(catalog)
    chosen = {name: catalog.get(name) for name in names}
    unknown = [name for name, served in chosen.items() if served is None and name not in listed]
    if unknown:
        known = ", ".join(repr(served.name) for served in catalog)
        raise ConfigError(
            f"--preload {unknown[0]}: no such cache is served; there is {known}, or all of them: {ALL}"
        )
    return [served for served in catalog if served in chosen.values()]
