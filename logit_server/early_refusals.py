"""What is wrong with a request that is refused before it is whole, in sentences."""

from __future__ import annotations

import httptools

from cache_builder.format import KDCacheError
from logit_server.errors import (
    HeaderTooLargeError,
    MalformedRequestError,
    OverloadedError,
    TargetTooLongError,
    TooLargeError,
    shorten,
)
from logit_server.settings import Settings


def header_too_large(limits: Settings) -> KDCacheError:
    """More bytes or fields than a header may have, or more around the chunks of a body."""
    return HeaderTooLargeError(
        f"the header, or what stands around the chunks of the body, has more than "
        f"{int(limits.max_header_bytes):,} bytes or {limits.max_headers} fields, the limits "
        "of this server; send fewer and shorter fields, and larger chunks"
    )


def target_too_long(limits: Settings) -> KDCacheError:
    """A path and a query that are too long."""
    return TargetTooLongError(
        f"the path and the query have more than {int(limits.max_target_bytes):,} bytes, the "
        "limit of this server; many ids or rows go into the body of a POST"
    )


def body_too_large(limits: Settings) -> KDCacheError:
    """A body that is too large, by its bytes or by what its header says of them."""
    return TooLargeError(
        f"the body has more than {int(limits.max_body_bytes):,} bytes, the limit of this "
        "server; send less at once"
    )


def too_many_connections(limits: Settings) -> KDCacheError:
    """A connection beyond those that a worker may have."""
    return OverloadedError(
        f"more connections than the {limits.max_connections} of this worker; try again in a second",
        "connections",
    )


def unknown_coding(value: bytes) -> KDCacheError:
    """A ``Transfer-Encoding`` other than chunked."""
    return MalformedRequestError(
        f"Transfer-Encoding is {shorten(value.decode('latin-1'))}, and this server reads only "
        "chunked: send the body as it is"
    )


def upgrade_with_body() -> KDCacheError:
    """A body whose request asks for another protocol: the parser takes it for the beginning of that."""
    return MalformedRequestError(
        "the request has a body and asks for another protocol (Upgrade), and this server speaks "
        "HTTP/1.1 alone: send it without Upgrade"
    )


def malformed(error: httptools.HttpParserError) -> KDCacheError:
    """What the parser does not understand."""
    said = "" if isinstance(error, httptools.HttpParserCallbackError) else f": {error}"
    return MalformedRequestError(f"what came is no request of HTTP/1.1{said}")
