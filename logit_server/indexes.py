"""The indexes that ids are looked up with, made at start and outside of requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor

from logit_server.readers import Readers
from logit_server.served_caches import ServedCache


class Indexes:
    """Has the indexes made one after the other; a request that comes earlier waits, and nobody else."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._making: dict[str, asyncio.Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="id-index")

    def begin(self, caches: Iterable[ServedCache]) -> None:
        """Have the indexes made of those that have none."""
        for served in caches:
            if not _is_there(served):
                self._made(served)

    async def ready(self, served: ServedCache) -> None:
        """Wait until ids of a cache can be looked up."""
        if not _is_there(served):
            # Shielded: others wait for it too.
            await asyncio.shield(self._made(served))

    def _made(self, served: ServedCache) -> asyncio.Future[None]:
        making = self._making.get(served.cache_id)
        if making is None or making.done():
            loop = asyncio.get_running_loop()
            making = self._making[served.cache_id] = loop.run_in_executor(self._thread, self._make, served)
        return making

    def _make(self, served: ServedCache) -> None:
        ids = served.cache.ids
        # Its own errors show where ids are looked up, which makes the index where it is not there.
        with contextlib.suppress(Exception):
            if not _is_there(served) and (found := self._readers.read_index(served)) is not None:
                ids.hash_index = found

    @contextlib.asynccontextmanager
    async def running(self, caches: Iterable[ServedCache]) -> AsyncIterator[None]:
        """Begin with these caches; at the end, what has not been begun is left."""
        self.begin(caches)
        try:
            yield
        finally:
            self._thread.shutdown(cancel_futures=True)


def _is_there(served: ServedCache) -> bool:
    return "hash_index" in vars(served.cache.ids)
