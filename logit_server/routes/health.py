"""``/healthz`` and ``/readyz``, for whoever starts and stops servers."""

from __future__ import annotations

import asyncio
import os

from fastapi import APIRouter, Request
from pydantic import BaseModel

from cache_builder.format import StorageError
from logit_server.routes.documents import responses
from logit_server.state import State, pages_of, state_of
from logit_server.storage import check_reachable

router = APIRouter(tags=["health"])

LOOK_S = 5.0
"""Seconds that a store has to answer: one that hangs is as good as away."""


class Health(BaseModel):
    """The state of the worker that answered."""

    status: str
    caches: list[str]


@router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> Health:
    """200 while the process answers at all."""
    return Health(status="ok", caches=[served.name for served in state_of(request).catalog])


@router.get("/readyz", response_model=Health, responses=responses(410, 503))
async def readyz(request: Request) -> Health:
    """200 when records can be served: every store is looked at, and pages can be written."""
    folder = pages_of(request).folder.folder
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"the page folder {folder} cannot be written")
    state = state_of(request)
    await _look(state)
    return Health(status="ready", caches=[served.name for served in state.catalog])


async def _look(state: State) -> None:
    """Look at every store; requests that come while somebody looks wait for the same look."""
    if state.look is None or state.look.done():
        state.look = asyncio.create_task(asyncio.to_thread(_look_at_all, state))
    try:
        # Shielded: a thread that hangs is not left behind for another one by each request.
        await asyncio.wait_for(asyncio.shield(state.look), LOOK_S)
    except TimeoutError:
        raise StorageError(f"a store did not answer for {LOOK_S:.0f} s") from None


def _look_at_all(state: State) -> None:
    for served in state.catalog:
        check_reachable(served)
