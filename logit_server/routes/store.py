"""The objects of a cache's Zarr store as they are, so that other programs open it over HTTP with zarr."""

from __future__ import annotations

from typing import TypeVar

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from cache_builder.format import CorruptCacheError
from cache_builder.format.content_digest import content_digest
from cache_builder.format.wire import CACHES_PATH, DIGEST_HEADER, JSON
from logit_server.byte_ranges import select
from logit_server.errors import UnknownObjectError, shorten
from logit_server.routes.answers import caching_headers, not_modified
from logit_server.routes.documents import BINARY, responses
from logit_server.served_caches import ServedCache
from logit_server.state import cache_of, is_head
from logit_server.storage import check_reachable, read_cache
from logit_server.wire import entity_tag, no_query

router = APIRouter(tags=["caches"], dependencies=[Depends(no_query)])

OCTETS = "application/octet-stream"
_ROOT = "zarr.json"
_T = TypeVar("_T")


@router.get(
    CACHES_PATH + "/{name}/zarr/{key:path}",
    response_class=Response,
    responses=responses(404, 410, 416, 422, 500, 503, content={OCTETS: BINARY, JSON: {}}),
)
async def read_object(request: Request, name: str, key: str) -> Response:
    """One object of the store: ``zarr.open("…/v1/caches/{name}/zarr")`` reads the cache in place.

    404 says that the store cannot have it; one that should be there and is not is a 500, and a store that
    does not answer a 503.
    """
    served = cache_of(request)
    tag = entity_tag(served.cache_id, "zarr", key.replace("/", "."))
    if key != _ROOT and not served.objects.has(key):
        raise UnknownObjectError(f"cache {served.name!r} has no object {shorten(key)} in its store")
    headers = caching_headers(request, served, tag)
    if fresh := not_modified(request, headers):
        return fresh
    size = await run_in_threadpool(_size, served, key)
    selected = select(request, size, tag)
    kind = JSON if key.endswith(_ROOT) else OCTETS
    if is_head(request) and kind == OCTETS:
        return Response(b"", selected.status, headers | selected.headers, kind)
    content = await run_in_threadpool(_read, served, key, selected.bytes)
    headers[DIGEST_HEADER] = content_digest(content)
    return Response(content, selected.status, headers | selected.headers, kind)


def _size(served: ServedCache, key: str) -> int:
    if key == _ROOT:
        return len(served.root_json)
    size = read_cache(served, f"object {key}", lambda _: served.objects.size(key), as_it_was=True)
    return _there(served, key, size)


def _read(served: ServedCache, key: str, part: range) -> bytes:
    if key == _ROOT:
        return served.root_json[part.start : part.stop]
    content = read_cache(served, f"object {key}", lambda _: served.objects.read(key, part), as_it_was=True)
    return _there(served, key, content)


def _there(served: ServedCache, key: str, found: _T | None) -> _T:
    """What was found; otherwise say why it was not."""
    if found is not None:
        return found
    check_reachable(served)
    if served.objects.must_have(key):
        raise CorruptCacheError(f"cache {served.name!r}: object {key} is missing from its store")
    raise UnknownObjectError(f"cache {served.name!r} has no object {shorten(key)} in its store")
