"""Answers that never change: entity tags, 304, and what caches on the way may keep."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from logit_server.served_caches import ServedCache
from logit_server.state import state_of
from logit_server.wire import is_fresh

IMMUTABLE = "max-age=31536000, immutable"
REVALIDATE = "no-cache"


def caching_headers(request: Request, served: ServedCache, tag: str) -> dict[str, str]:
    """ETag and Cache-Control of an answer that is a function of the cache.

    Under ``/v1/caches/{cache_id}`` it can never change. Under the cache's name it can: another cache may be
    served under the same name tomorrow, so clients are told to ask again (and get 304).
    """
    by_id = request.path_params["name"] == served.cache_id
    # What needs a token is kept by nobody between: a cache on the way would give it to everyone.
    kept_by = "public" if state_of(request).access.tokens.is_empty else "private"
    return {"etag": tag, "cache-control": f"{kept_by}, {IMMUTABLE}" if by_id else REVALIDATE}


def not_modified(request: Request, headers: dict[str, str]) -> Response | None:
    """304 where the client already has the answer with these headers."""
    return Response(status_code=304, headers=headers) if is_fresh(request, headers["etag"]) else None
