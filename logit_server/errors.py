"""What a request can do wrong, and the one table from exceptions to HTTP status codes."""

from __future__ import annotations

import http
import json
import logging
import reprlib

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cache_builder.format import CorruptCacheError, KDCacheError, StorageError, UnknownSampleError
from cache_builder.format.wire import JSON

REQUEST_ID_KEY = "kdcache.request_id"

logger = logging.getLogger("logit_server")


class RequestError(KDCacheError):
    """A request that cannot be answered: a value is malformed or out of range."""


class MalformedRequestError(RequestError):
    """What came is no request of HTTP/1.1."""


class SlowClientError(RequestError):
    """A request did not come within its time."""


class TargetTooLongError(RequestError):
    """The path and the query are longer than this server takes."""


class HeaderTooLargeError(RequestError):
    """The header is larger than this server takes."""


class UnknownCacheError(RequestError):
    """No cache of that name or id is served."""


class UnknownArrayError(RequestError):
    """The cache has no such array."""


class UnknownObjectError(RequestError):
    """The store of the cache has no such object."""


class TooLargeError(RequestError):
    """More ids or bytes than this server takes in one request."""


class MediaTypeError(RequestError):
    """A body of a type this server does not read."""


class NotAcceptableError(RequestError):
    """The client takes none of the types this server can answer with."""


class RangeError(RequestError):
    """A range of bytes that lies beyond the end. ``headers``: what the answer has to say."""

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class OverloadedError(KDCacheError):
    """More at once than this server takes: requests, connections or bytes of bodies (``kind``)."""

    KINDS = ("in_flight", "connections", "bodies")

    def __init__(self, message: str, kind: str = "in_flight") -> None:
        super().__init__(message)
        self.kind = kind


class BusyPeerError(OverloadedError):
    """More requests at once than one client may have."""


class UnauthorizedError(KDCacheError):
    """The request carries no token of this server."""


class ForbiddenError(KDCacheError):
    """The token of the request is good for other things."""


class HostError(KDCacheError):
    """The request was sent to a name that this server does not have."""


class ReplacedCacheError(KDCacheError):
    """Another cache lies by now where the served one was."""


STATUSES: dict[type[Exception], int] = {
    MalformedRequestError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    UnknownCacheError: 404,
    UnknownArrayError: 404,
    UnknownObjectError: 404,
    UnknownSampleError: 404,
    NotAcceptableError: 406,
    SlowClientError: 408,
    ReplacedCacheError: 410,
    TooLargeError: 413,
    TargetTooLongError: 414,
    MediaTypeError: 415,
    RangeError: 416,
    HostError: 421,
    RequestError: 422,
    RequestValidationError: 422,
    BusyPeerError: 429,
    HeaderTooLargeError: 431,
    CorruptCacheError: 500,
    OverloadedError: 503,
    StorageError: 503,
    KDCacheError: 500,
    Exception: 500,
}
"""Status by exception class; a subclass that is not named has the status of its nearest parent."""

RETRY_AFTER_S = 1

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


def status_of(error: Exception) -> int:
    """The status code of an exception."""
    if isinstance(error, HTTPException):
        return error.status_code
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def error_response(error: Exception) -> Response:
    """``{"error": class name, "detail": sentence}`` with the status of the table."""
    status = status_of(error)
    name, detail = _describe(error)
    headers = {"cache-control": "no-store"}
    if status in (429, 503):
        headers["retry-after"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["www-authenticate"] = 'Bearer, Basic realm="kdcache: the token is the password"'
    if isinstance(error, HTTPException):
        headers |= _headers_of(error)
    if isinstance(error, RangeError):
        headers |= error.headers
    body = json.dumps({"error": name, "detail": detail}, ensure_ascii=False).encode()
    return Response(body, status, headers, media_type=JSON)


async def respond_to(request: Request, error: Exception) -> Response:
    """The exception handler of every class in the table; what is the server's own fault is logged."""
    if status_of(error) >= 500 and not isinstance(error, OverloadedError):
        request_id = request.scope.get(REQUEST_ID_KEY)
        unforeseen = None if isinstance(error, KDCacheError) else error
        cause = error.__cause__ if isinstance(error.__cause__, KDCacheError) else error
        logger.error(
            "request %s, %s %s: %s", request_id, request.method, request.url.path, cause, exc_info=unforeseen
        )
    return error_response(error)


def _describe(error: Exception) -> tuple[str, str]:
    if isinstance(error, HTTPException):
        return http.HTTPStatus(error.status_code).phrase.title().replace(" ", ""), _explain(error)
    if isinstance(error, RequestValidationError):
        return "RequestError", "; ".join(
            _invalid(item["loc"], item["msg"], item["input"], item["type"]) for item in error.errors()
        )
    if isinstance(error, KDCacheError):
        return type(error).__name__, str(error)
    # The message of an exception nobody foresaw may hold anything: it goes to the log only.
    return "InternalError", "the server failed unexpectedly; its log has the details under this X-Request-Id"


def _explain(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this path; /openapi.json lists what there is"
    if error.status_code == 405:
        return f"this path takes {_headers_of(error).get('Allow', 'other methods')} only"
    return error.detail


def _headers_of(error: HTTPException) -> dict[str, str]:
    """The headers of an error; where GET is allowed, HEAD is too, which the envelope routes as GET."""
    headers = dict(error.headers or {})
    if "Allow" in headers:
        allowed = [method.strip() for method in headers["Allow"].split(",")]
        headers["Allow"] = ", ".join(allowed + ["HEAD"] * ("GET" in allowed and "HEAD" not in allowed))
    return headers


def _invalid(location: tuple[str | int, ...], message: str, found: object, kind: str) -> str:
    where = ".".join(str(part) for part in location)
    if kind == "missing":  # what was found is all that stands around it
        return f"{where} is missing"
    return f"{where} is {shorten(found)}: {message}"


def shorten(value: object) -> str:
    """A value as it appears in an error: its repr, cut where it is long, however large the value is."""
    text = _REPR.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
