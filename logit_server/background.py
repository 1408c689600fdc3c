"""Tasks that run beside the requests, for as long as a context lasts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

logger = logging.getLogger("logit_server")


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` within the block; at its end it is stopped, and has ended when the block is left.

    What it raised before is logged when it happens, and raised at the end of a block that raises nothing.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(_log_death)
    try:
        yield
    finally:
        task.cancel()
        # Not awaited itself: its cancellation could not be told from that of who waits here.
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _log_death(task: asyncio.Task[None]) -> None:
    """Say at once that work has died: a server lives for months, and its end is too late."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s died, and is not done any more", task.get_coro(), exc_info=error)
