"""What a request can do wrong, and the one table from exceptions to HTTP status codes."""

from __future__ import annotations

import reprlib

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from cache_builder.format import CorruptCacheError, KDCacheError, StorageError, UnknownSampleError

REQUEST_ID_KEY = "kdcache.request_id"


class RequestError(KDCacheError):
    """A request that cannot be answered: a value is malformed or out of range."""


class MalformedRequestError(RequestError):
    """What came is no request of HTTP/1.1."""


class OriginError(RequestError):
    """Web pages of that origin may not send such a request."""


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

    KINDS = ("in_flight", "connections", "bodies", "pictures", "stopping")

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class BusyPeerError(OverloadedError):
    """More requests at once than one client may have."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "peer")


class UnauthorizedError(KDCacheError):
    """The request carries no token of this server."""


class ForbiddenError(KDCacheError):
    """The token of the request is good for other things."""


class HostError(KDCacheError):
    """The request was sent to a name that this server does not have."""


class ReplacedCacheError(KDCacheError):
    """Another cache lies by now where the served one was."""


class InternalError(KDCacheError):
    """The server failed in a way that nobody foresaw."""


STATUSES: dict[type[Exception], int] = {
    MalformedRequestError: 400,
    OriginError: 400,
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
    InternalError: 500,
    OverloadedError: 503,
    StorageError: 503,
    KDCacheError: 500,
    Exception: 500,
}
"""Status by exception class; a subclass that is not named has the status of its nearest parent."""

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


def known_kind(error: Exception) -> type[Exception]:
    """The class of the table that an exception counts as."""
    return next(kind for kind in type(error).__mro__ if kind in STATUSES)


def status_of(error: Exception) -> int:
    """The status code of an exception."""
    return error.status_code if isinstance(error, HTTPException) else STATUSES[known_kind(error)]


def shorten(value: object) -> str:
    """A value as it appears in an error: its repr, cut where it is long, however large the value is."""
    text = _REPR.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
