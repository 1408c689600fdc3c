"""Views as pictures, rendered by a process of its own: the server itself never loads torch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from cache_builder.format import ConfigError, KDCacheError, StorageError
from logit_server.errors import OverloadedError
from logit_server.served_caches import Catalog, ServedCache
from logit_server.sources_of_caches import split_name

_COMMAND = (sys.executable, "-m", "cache_builder.look.pictures")
_ANSWER_S = 120.0
"""Seconds that a picture may take: the first one waits for torch and for the data set."""
_IDLE_S = 600.0
"""Seconds without a picture after which the process is ended: torch keeps half a GB of memory."""
_MOST_WAITING = 64


class PictureError(StorageError):
    """A view could not be rendered."""


def data_sets(given: tuple[str, ...], catalog: Catalog) -> dict[str, str]:
    """The data set of each served cache by its name, from SPEC (of all) or NAME=SPEC (of one).

    Raises :class:`ConfigError` for a name that is not served.
    """
    served = [cache.name for cache in catalog]
    found: dict[str, str] = {}
    for item in given:
        name, spec = split_name(item)
        if name is not None and name not in served:
            raise ConfigError(
                f"--data {item}: no cache {name!r} is served, there is {', '.join(map(repr, served))}"
            )
        found |= dict.fromkeys(served if name is None else [name], spec)
    return found


class Pictures:
    """Renders views of caches whose data sets are known, one after the other."""

    def __init__(self, data: Mapping[str, str]) -> None:
        self.data = data
        """The data set of each cache, by the cache's name."""
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    def has(self, served: ServedCache) -> bool:
        """Whether the pictures of a cache can be asked for."""
        return served.name in self.data and served.has_one_position

    async def render(self, served: ServedCache, row: int, view: int) -> bytes:
        """One view as a PNG.

        Raises :class:`PictureError`, with what the process said as its cause; :class:`OverloadedError` where
        too many wait.
        """
        if self._waiting >= _MOST_WAITING:
            raise OverloadedError(
                "too many pictures are asked for at once; try again in some seconds", "pictures"
            )
        self._waiting += 1
        try:
            async with self._lock:
                return await self._rendered(served, row, view)
        finally:
            self._waiting -= 1

    async def _rendered(self, served: ServedCache, row: int, view: int) -> bytes:
        location, data = served.cache.location, self.data[served.name]
        wanted = {"cache": location, "data": data, "row": row, "view": view}
        try:
            answer = await self._asked(wanted)
        except asyncio.CancelledError:
            self.end()  # half an answer may be in the pipe
            raise
        if isinstance(answer, bytes):
            return answer
        # The log has the whole of it: where things lie on this machine is not for clients.
        which = f"view {view} of row {row} of cache {served.name!r}"
        cause = KDCacheError(f"{which}: {answer}")
        raise PictureError(f"{which} could not be rendered; the server's log says why") from cause

    async def _asked(self, wanted: dict[str, Any]) -> bytes | str:
        """The picture, or why there is none."""
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(wanted).encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(_ANSWER_S):
                answer = json.loads(await process.stdout.readline())
                if "error" in answer:
                    return str(answer["error"])
                return await process.stdout.readexactly(answer["bytes"])
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            self.end()
            return "the process that renders pictures ended or did not answer"

    async def _started(self) -> asyncio.subprocess.Process:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self.end)
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # One thread: requests for records come first. No signal of the terminal: it ends with us.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return self._process

    def end(self) -> None:
        """End the process; the next picture starts another one."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._process = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End the process with the server."""
        try:
            yield
        finally:
            process = self._process
            self.end()
            if self._idle is not None:
                self._idle.cancel()
            if process is not None:
                await process.wait()
