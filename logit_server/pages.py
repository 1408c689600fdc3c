"""The pages of one worker: mapped memory, found without a lock, loaded once in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from logit_server.page_folder import Page, PageFolder
from logit_server.served_caches import ServedCache

REFRESH_S = 1.0
"""Seconds between two looks at what other workers use and evict."""

_LOADERS = 2
"""Pages a worker reads at once; each takes the memory of a page while it does."""

Key = tuple[str, int]
"""(cache_id, view)."""


class Pages:
    """Resident pages by (cache_id, view). Lives on one event loop; only loading leaves it."""

    def __init__(self, folder: PageFolder) -> None:
        self.folder = folder
        self._resident: dict[Key, Page] = {}
        self._used: set[Key] = set()
        self._loading: dict[Key, asyncio.Task[Page]] = {}
        self._executor = ThreadPoolExecutor(_LOADERS, thread_name_prefix="page-loader")

    async def get(self, served: ServedCache, view: int) -> Page:
        """The page of a view, resident or loaded now."""
        return self.resident(served, view) or await self.load(served, view)

    def resident(self, served: ServedCache, view: int) -> Page | None:
        """The page of a view if it is mapped already."""
        key = (served.cache_id, view)
        page = self._resident.get(key)
        if page is not None:
            self._used.add(key)
        return page

    async def load(self, served: ServedCache, view: int) -> Page:
        """Load the page of a view, once for everybody who waits for it.

        Raises what :meth:`PageFolder.open` raises; a failure is not remembered.
        """
        key = (served.cache_id, view)
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._open(key, served))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        # Shielded: a client that hangs up must not take the page from the others that wait for it.
        return await asyncio.shield(task)

    async def _open(self, key: Key, served: ServedCache) -> Page:
        loop = asyncio.get_running_loop()
        page = await loop.run_in_executor(self._executor, self.folder.open, served, key[1])
        self._resident[key] = page
        return page

    def _loaded(self, key: Key, task: asyncio.Task[Page]) -> None:
        del self._loading[key]
        if not task.cancelled():
            task.exception()  # looked at, in case every client that asked has gone

    async def refresh(self) -> None:
        """Tell the other workers which pages are in use here, and let go of those that were evicted."""
        used, self._used = self._used, set()
        keys = {self._path(key): key for key in self._resident}
        mapped = {path: self._resident[key] for path, key in keys.items()}
        for path in await asyncio.to_thread(self.folder.touch, {self._path(key) for key in used}, mapped):
            self._resident.pop(keys[path], None)

    def _path(self, key: Key) -> Path:
        return self.folder.path(*key)

    @contextlib.asynccontextmanager
    async def refreshing(self) -> AsyncIterator[None]:
        """Refresh for as long as the context lasts; then wait for running loads and close."""
        task = asyncio.create_task(self._refresh_for_ever())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._executor.shutdown()
            self._resident.clear()

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()
