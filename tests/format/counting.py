"""A local store that counts what it is asked for, so that tests can say how many requests a reading costs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from cache_builder.format import store as stores


class Requests(Counter[str]):
    """Requests by kind: ``get``, ``getsize``, ``exists``, ``list``."""

    def taken(self) -> int:
        """The number of requests since the last call."""
        count = self.total()
        self.clear()
        return count


@contextlib.contextmanager
def counted_requests() -> Iterator[Requests]:
    """Count the requests to every local store that is opened while the context lasts."""
    requests = Requests()

    class CountingStore(LocalStore):
        async def get(self, *arguments: Any, **named: Any) -> Buffer | None:
            requests["get"] += 1
            return await super().get(*arguments, **named)

        async def getsize(self, key: str) -> int:
            requests["getsize"] += 1
            return await super().getsize(key)

        async def exists(self, key: str) -> bool:
            requests["exists"] += 1
            return await super().exists(key)

        async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
            requests["list"] += 1
            async for key in super().list_prefix(prefix):
                yield key

        async def list_dir(self, prefix: str) -> AsyncIterator[str]:
            requests["list"] += 1
            async for key in super().list_dir(prefix):
                yield key

    with mock.patch.object(stores, "LocalStore", CountingStore):
        yield requests
