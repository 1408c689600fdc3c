"""``/livez``, ``/healthz``, ``/readyz`` and a cache's ``ready``, for whoever starts and stops servers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from cache_builder.format.wire import CACHES_PATH
from logit_server.readiness import check_cache, check_server
from logit_server.routes.documents import responses
from logit_server.state import cache_of, catalog_of, state_of
from logit_server.wire import no_query

router = APIRouter(tags=["health"], dependencies=[Depends(no_query)])


class Health(BaseModel):
    """The state of the worker that answered."""

    status: str
    caches: list[str]
    """Those that the sender may know of: none without a token, where the server has tokens."""


@router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> Health:
    """As ``/livez``."""
    return await livez(request)


@router.get("/livez", response_model=Health)
async def livez(request: Request) -> Health:
    """200 while the process answers at all, whatever it can reach: who restarts servers goes by this."""
    return Health(status="ok", caches=_names(request))


@router.get("/readyz", response_model=Health, responses=responses(503))
async def readyz(request: Request) -> Health:
    """200 when records can be served, after a look: who sends requests to servers goes by this.

    The store of every cache answers and holds it, pages can be kept, the limits have room, and the worker is
    not stopping. 503 says in ``failed`` which of these is not so, and what to do. A look holds for a
    second.
    """
    await check_server(state_of(request), catalog_of(request))
    return Health(status="ready", caches=_names(request))


@router.get(CACHES_PATH + "/{name}/ready", response_model=Health, responses=responses(404, 410, 422, 503))
async def ready(request: Request, name: str) -> Health:
    """As ``/readyz``, of one cache."""
    served = cache_of(request)
    await check_cache(state_of(request), served.name)
    return Health(status="ready", caches=[served.name])


def _names(request: Request) -> list[str]:
    return [served.name for served in catalog_of(request)]
