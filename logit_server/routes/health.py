"""``/healthz`` and ``/readyz``, for whoever starts and stops servers."""

from __future__ import annotations

import os

from fastapi import APIRouter, Request
from pydantic import BaseModel

from logit_server.errors import StorageError
from logit_server.routes.documents import responses
from logit_server.state import pages_of, state_of

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The state of the worker that answered."""

    status: str
    caches: list[str]


@router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> Health:
    """200 while the process answers at all."""
    return Health(status="ok", caches=[served.name for served in state_of(request).catalog])


@router.get("/readyz", response_model=Health, responses=responses(503))
async def readyz(request: Request) -> Health:
    """200 when records can be served: the caches are open and pages can be written."""
    folder = pages_of(request).folder.folder
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"the page folder {folder} cannot be written")
    return Health(status="ready", caches=[served.name for served in state_of(request).catalog])
