"""The pages of one worker: mapped memory, read without a lock, filled block by block in threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.codecs import Part
from logit_server.background import meanwhile
from logit_server.looks import Looks
from logit_server.page import Page
from logit_server.page_folder import PageFolder
from logit_server.served_caches import Catalog, ServedCache

REFRESH_S = 1.0
"""Seconds between two looks at what other workers use and evict."""

_LOADERS = 2
"""Blocks a worker reads at once, and a request asks for at once; each takes the memory of a block."""

_T = TypeVar("_T")

logger = logging.getLogger("logit_server")

PageKey = tuple[str, int, Part]
"""(cache_id, view, part of its records)."""
BlockKey = tuple[str, int, Part, int]
"""... and block."""


class Pages:
    """Mapped pages by cache_id, view and part. Lives on one event loop; only mapping and loading leave it.

    Where views share a part of their records, it has a page of its own, and a record is put together of two.
    """

    def __init__(self, folder: PageFolder) -> None:
        self.folder = folder
        self.looks = Looks()
        """At the folder: not those at the stores, which may all hang."""
        self._mapped: dict[PageKey, Page] = {}
        self._served: set[str] | None = None
        """The cache_ids whose pages stay; None for all."""
        self._mapping: dict[PageKey, asyncio.Task[Page]] = {}
        self._loading: dict[BlockKey, asyncio.Task[NDArray[np.uint8]]] = {}
        self._executor = ThreadPoolExecutor(_LOADERS, thread_name_prefix="block-loader")

    def resident(
        self,
        served: ServedCache,
        view: int,
        positions: NDArray[np.integer[Any]],
        part: Part = Part.WHOLE,
    ) -> NDArray[np.uint8] | None:
        """The records of ``positions``, uint8 [n, bytes], where all of them are in memory already.

        Raises :class:`IndexError` for what the cache does not have; where not all others are in memory,
        it may not notice.
        """
        found = []
        for of in served.pages_of(view, part):
            page = self._mapped.get((served.cache_id, *of))
            records = None if page is None else page.take(positions)
            if records is None:
                return None
            found.append(records)
        return _side_by_side(found)

    async def gather(
        self,
        served: ServedCache,
        view: int,
        positions: NDArray[np.integer[Any]],
        part: Part = Part.WHOLE,
    ) -> NDArray[np.uint8]:
        """The records of ``positions``, uint8 [n, bytes]; the blocks that are missing are loaded.

        The cache must have all of them. Raises what :meth:`PageFolder.load` raises for a block that some of
        them lie in.
        """
        return _side_by_side(
            [await self._gathered(served, of, positions) for of in served.pages_of(view, part)]
        )

    async def _gathered(
        self, served: ServedCache, of: tuple[int, Part], positions: NDArray[np.integer[Any]]
    ) -> NDArray[np.uint8]:
        """As :meth:`gather`, of one page."""
        page = await self._page(served, of)
        records = page.take(positions)
        if records is not None:
            return records
        out = np.empty((len(positions), page.record_bytes), np.uint8)

        async def fill(block: int, places: NDArray[np.intp]) -> None:
            wanted = positions[places]
            found = page.take(wanted)
            if found is None:
                # From the block itself: it may be evicted for the next one before this request is answered.
                found = (await self._block(served, of, page, block))[wanted - served.blocks.rows(block).start]
            out[places] = found

        async for _ in _in_order(fill(*part) for part in served.blocks.split(positions)):
            pass
        return out

    async def stream(
        self, served: ServedCache, view: int, rows: range, part: Part = Part.WHOLE
    ) -> AsyncIterator[NDArray[np.uint8]]:
        """The records of consecutive rows in pieces, block by block; the next one is loaded meanwhile."""

        async def piece(run: range, block: int) -> NDArray[np.uint8]:
            pages = served.pages_of(view, part)
            return _side_by_side([await self._piece(served, of, run, block) for of in pages])

        runs = served.cache.positions.runs(rows)
        pieces = (piece(run, block) for run in runs for block in served.blocks.meeting(run))
        async for records in _in_order(pieces):
            yield records

    async def load(self, served: ServedCache, view: int) -> None:
        """Load the blocks of a view that are missing; raises what :meth:`gather` raises."""

        async def loaded(of: tuple[int, Part], block: int) -> None:
            page = await self._page(served, of)
            if not page.marks[block]:
                await self._block(served, of, page, block)

        blocks = range(len(served.blocks))
        async for _ in _in_order(loaded(of, block) for of in served.pages_of(view) for block in blocks):
            pass

    async def _piece(
        self, served: ServedCache, of: tuple[int, Part], run: range, block: int
    ) -> NDArray[np.uint8]:
        """What a page has of those positions of a run that lie in a block."""
        page, of_block = await self._page(served, of), served.blocks.rows(block)
        wanted = range(max(run.start, of_block.start), min(run.stop, of_block.stop))
        found = page.take_range(wanted)
        if found is None:
            whole = await self._block(served, of, page, block)
            found = whole[wanted.start - of_block.start : wanted.stop - of_block.start]
        return found

    async def _page(self, served: ServedCache, of: tuple[int, Part]) -> Page:
        key = (served.cache_id, *of)
        page = self._mapped.get(key)
        if page is None:
            page = await self._once(self._mapping, key, self.folder.open, served, *of)
            self._mapped[key] = page
        return page

    async def _block(
        self, served: ServedCache, of: tuple[int, Part], page: Page, block: int
    ) -> NDArray[np.uint8]:
        view, part = of
        key = (served.cache_id, view, part, block)
        return await self._once(self._loading, key, self.folder.load, served, view, page, block, part)

    async def _once(self, running: dict[Any, asyncio.Task[_T]], key: Any, call: Any, *arguments: Any) -> _T:
        """Call in a thread, once for everybody who waits for it; a failure is not remembered."""
        task = running.get(key)
        if task is None:
            task = asyncio.create_task(self._in_thread(call, *arguments))
            running[key] = task
            task.add_done_callback(lambda done: _over(running, key, done))
        # Shielded: a client that hangs up must not take the block from the others that wait for it.
        return await asyncio.shield(task)

    async def _in_thread(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    def take(self, catalog: Catalog) -> None:
        """Keep pages of these caches alone: the next :meth:`refresh` removes those of others."""
        self._served = {served.cache_id for _, served in catalog.items()}

    async def refresh(self) -> None:
        """Tell the other workers which blocks are in use here, and let go of files that are gone."""
        mapped = list(self._mapped.items())
        if self._served is not None:
            for (cache_id, *_), page in mapped:
                if cache_id not in self._served:
                    await asyncio.to_thread(self.folder.remove, page)
        for key in await asyncio.to_thread(_look_after, mapped):
            self._mapped.pop(key, None)

    @contextlib.asynccontextmanager
    async def refreshing(self) -> AsyncIterator[None]:
        """Refresh for as long as the context lasts; then wait for running loads and close."""
        try:
            async with meanwhile(self._refresh_for_ever()):
                yield
        finally:
            self._executor.shutdown()
            self._mapped.clear()

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Exception:  # who ended here would never let go of a page again
                logger.exception("the pages could not be looked after")


def _side_by_side(parts: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Parts of the same records [n, ...] as these records."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _look_after(mapped: list[tuple[PageKey, Page]]) -> list[PageKey]:
    """Note what was used of the pages; returns the keys of those whose files are gone or cut off."""
    gone = []
    for key, page in mapped:
        if page.is_current():
            page.note_use()
        else:
            gone.append(key)
    return gone


def _over(running: dict[Any, asyncio.Task[_T]], key: Any, task: asyncio.Task[_T]) -> None:
    del running[key]
    if not task.cancelled():
        task.exception()  # looked at, in case every client that asked has gone


async def _in_order(parts: Any) -> AsyncIterator[Any]:
    """The results of coroutines in their order, ``_LOADERS`` of them running at a time."""
    running: deque[asyncio.Task[Any]] = deque()
    try:
        for part in parts:
            running.append(asyncio.create_task(part))
            if len(running) >= _LOADERS:
                yield await running[0]
                running.popleft()
        while running:
            yield await running[0]
            running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
