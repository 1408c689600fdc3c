"""``/livez``, ``/healthz`` and ``/readyz``, for whoever starts and stops servers."""

from __future__ import annotations

import asyncio
import os

from fastapi import APIRouter, Request
from pydantic import BaseModel

from cache_builder.format import StorageError
from logit_server.errors import ReplacedCacheError
from logit_server.routes.documents import responses
from logit_server.state import State, catalog_of, pages_of, state_of
from logit_server.storage import check_reachable

router = APIRouter(tags=["health"])

_SOMETHING = "a cache of this server cannot be served just now; the server's log says which"
"""What those are told who may not know of every cache."""

LOOK_S = 5.0
"""Seconds that a store has to answer: one that hangs is as good as away."""


class Health(BaseModel):
    """The state of the worker that answered."""

    status: str
    caches: list[str]
    """Those that the sender may know of: none without a token, where the server has tokens."""


@router.get("/livez", response_model=Health)
@router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> Health:
    """200 while the process answers at all."""
    return Health(status="ok", caches=_names(request))


@router.get("/readyz", response_model=Health, responses=responses(410, 503))
async def readyz(request: Request) -> Health:
    """200 when records can be served: every store is looked at, and pages can be written."""
    folder = pages_of(request).folder.folder
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError("the page folder cannot be written; the server's log says which") from (
            StorageError(f"the page folder {folder} cannot be written")
        )
    state = state_of(request)
    try:
        await _look(state)
    except (StorageError, ReplacedCacheError) as error:
        if _sees_all(request):
            raise
        raise StorageError(_SOMETHING) from error
    return Health(status="ready", caches=_names(request))


def _names(request: Request) -> list[str]:
    return [served.name for served in catalog_of(request)]


def _sees_all(request: Request) -> bool:
    return catalog_of(request) is state_of(request).catalog


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
