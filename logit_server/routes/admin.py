"""``/v1/admin/reload``: the list of caches is read again. Tokens of scope ``admin`` may ask for it."""

from __future__ import annotations

import ipaddress

from fastapi import APIRouter, Depends, Request

from cache_builder.format.wire import RELOAD_PATH
from logit_server.errors import ForbiddenError
from logit_server.reloads import Reloaded, reloads_of
from logit_server.routes.documents import responses
from logit_server.state import catalog_of, state_of
from logit_server.wire import no_query

router = APIRouter(tags=["admin"], dependencies=[Depends(no_query)])


@router.post(RELOAD_PATH, response_model=Reloaded, responses=responses())
async def reload(request: Request) -> Reloaded:
    """Read the list of caches again, as SIGHUP does: the folders of caches, the file of settings, the tokens.

    The answer is that of the worker which has the request; the others of the run do the same within a second.
    A token that sees some caches alone gets an answer about these.
    """
    state = state_of(request)
    if state.access.tokens.is_empty and not _is_here(request):
        raise ForbiddenError("this server has no tokens: it reads its list again for this machine alone")
    seen = {served.name for served in catalog_of(request)}
    sees_all = catalog_of(request) is state.catalog
    done = await reloads_of(request).wish()
    if sees_all:
        return done
    seen |= {served.name for served in state.access.check(request.scope, state.catalog)}
    names = ("added", "removed", "extended", "replaced", "unchanged")
    about = {field: [name for name in getattr(done, field) if name in seen] for field in names}
    return Reloaded(**about, refused=[item for item in done.refused if item.cache in seen])


def _is_here(request: Request) -> bool:
    host = request.client.host if request.client else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
