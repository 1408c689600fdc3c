"""Errors as they are answered: problem details (RFC 9457), of the same form wherever the error came from."""

from __future__ import annotations

import http
import json
import logging
from typing import Any, NamedTuple

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cache_builder.format import KDCacheError
from cache_builder.format.wire import PROBLEM
from logit_server.errors import (
    REQUEST_ID_KEY,
    STATUSES,
    InternalError,
    OverloadedError,
    RangeError,
    RequestError,
    known_kind,
    shorten,
    status_of,
)
from logit_server.methods import allowed_methods
from logit_server.peers import peer_of
from logit_server.state import SCOPE_KEY

RETRY_AFTER_S = 1
PROBLEMS_PATH = "/problems"
"""The page that says what each kind of error means. ``type`` is a place on it, relative to the server's own
address: nobody reads a page of somebody else's host, and none has to exist."""

_CHALLENGE = 'Bearer, Basic realm="kdcache: the token is the password"'

logger = logging.getLogger("logit_server")


class Meaning(NamedTuple):
    """A kind of error, in general."""

    name: str
    status: int
    title: str


def meanings() -> list[Meaning]:
    """Every kind of error of kdcache that the table knows, by status."""
    kinds = [kind for kind in STATUSES if issubclass(kind, KDCacheError) and kind is not KDCacheError]
    return sorted(
        (Meaning(kind.__name__, STATUSES[kind], _title(kind)) for kind in kinds),
        key=lambda meaning: (meaning.status, meaning.name),
    )


def problem_response(error: Exception, request_id: str) -> Response:
    """The problem details of an error, with the status of the table.

    ``error`` in it is the class of the error, which programs go by.
    """
    status = status_of(error)
    body = _document(error, status) | {"request_id": request_id}
    # Names of files may hold bytes that are not UTF-8: they stay escaped, as JSON allows.
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")
    headers = {"cache-control": "no-store"}
    if status in (429, 503):
        headers["retry-after"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["www-authenticate"] = _CHALLENGE
    if isinstance(error, HTTPException):
        headers |= dict(error.headers or {})
    if isinstance(error, RangeError):
        headers |= error.headers
    return Response(content, status, headers, media_type=PROBLEM)


async def respond_to(request: Request, error: Exception) -> Response:
    """The exception handler of every class in the table; what is the server's own fault is logged."""
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        allowed = allowed_methods(request)
        if allowed and request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": allowed})
        if error.status_code == 405:
            error = HTTPException(405, headers={"allow": allowed})
    request_id = request.scope.get(REQUEST_ID_KEY, "")
    state = request.scope.get(SCOPE_KEY)
    if state is not None:
        state.refusals.of(error, request_id, peer_of(request.scope))
    if status_of(error) >= 500 and not isinstance(error, OverloadedError):
        unforeseen = None if isinstance(error, KDCacheError) else error
        cause = error.__cause__ if isinstance(error.__cause__, KDCacheError) else error
        logger.error(
            "request %s, %s %s: %s", request_id, request.method, request.url.path, cause, exc_info=unforeseen
        )
    return problem_response(error, request_id)


def _document(error: Exception, status: int) -> dict[str, Any]:
    """The members of a problem, but for the request's id."""
    if isinstance(error, HTTPException):
        # What HTTP itself defines has no type of ours: RFC 9457, 4.2.1.
        phrase = http.HTTPStatus(status).phrase
        name, kind, title = phrase.title().replace(" ", ""), "about:blank", phrase
    else:
        shown = _shown_kind(error)
        name = type(error).__name__ if isinstance(error, KDCacheError) else shown.__name__
        kind, title = f"{PROBLEMS_PATH}#{shown.__name__}", _title(shown)
    said = {"type": kind, "title": title, "status": status, "detail": _detail(error), "error": name}
    return said | getattr(error, "members", {})


def _shown_kind(error: Exception) -> type[Exception]:
    """The kind that the page of problems has for an error."""
    if isinstance(error, RequestValidationError):
        return RequestError
    found = known_kind(error)
    return InternalError if found in (KDCacheError, Exception) else found


def _title(kind: type[Exception]) -> str:
    """The first sentence of a class's description: the same for every error of a kind."""
    return (kind.__doc__ or kind.__name__).partition("\n")[0].partition(". ")[0].removesuffix(".")


def _detail(error: Exception) -> str:
    if isinstance(error, HTTPException):
        return _explain(error)
    if isinstance(error, RequestValidationError):
        return "; ".join(
            _invalid(item["loc"], item["msg"], item["input"], item["type"]) for item in error.errors()
        )
    if isinstance(error, KDCacheError):
        return str(error)
    # The message of an exception nobody foresaw may hold anything: it goes to the log only.
    return "the server failed unexpectedly; its log has the details under this X-Request-Id"


def _explain(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this path; /openapi.json lists what there is"
    if error.status_code == 405:
        return f"this path takes {(error.headers or {}).get('allow', 'other methods')} only"
    return error.detail


def _invalid(location: tuple[str | int, ...], message: str, found: object, kind: str) -> str:
    where = ".".join(str(part) for part in location)
    if kind == "missing":  # what was found is all that stands around it
        return f"{where} is missing"
    return f"{where} is {shorten(found)}: {message}"
