"""What the OpenAPI document says about answers that are not plain JSON models."""

from __future__ import annotations

from types import UnionType
from typing import Any

from pydantic import BaseModel

from cache_builder.format.wire import ID_HEADER

_MEANINGS = {
    404: "No such cache, array or sample id; the first few unknown ids are named.",
    406: "The client takes none of the types this path answers with.",
    410: "Another cache lies by now where the served one was.",
    413: "More ids, records or bytes than this server takes in one request.",
    415: "The body is of a type this path does not read.",
    416: "The range of bytes begins beyond the end.",
    422: "A row, view or range is out of range, or the request is malformed.",
    500: "Stored bytes fail their checksum; the tile is named. Never a wrong number.",
    503: "Too many requests at once, or the storage did not answer: try again after Retry-After seconds.",
}

_HEADERS = {
    "X-Request-Id": {
        "description": "The client's own id of the request, or one that the server's log has.",
        "schema": {"type": "string"},
    },
    ID_HEADER: {
        "description": "The cache_id of the cache that the answer is about.",
        "schema": {"type": "string"},
    },
}

BINARY = {"schema": {"type": "string", "format": "binary"}}
"""Bytes, as an OpenAPI document describes them."""


class ErrorDocument(BaseModel):
    """The body of every error."""

    error: str
    """Class of the error, e.g. ``UnknownSampleError``."""
    detail: str
    """A sentence: where, what was found, what was expected, what to do."""


def responses(
    *statuses: int, content: dict[str, Any] | None = None, model: type[BaseModel] | UnionType | None = None
) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: its errors, and the ``content`` of a success that is no model alone."""
    documented: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorDocument, "description": _MEANINGS[status], "headers": _HEADERS}
        for status in statuses
    }
    if content is not None:
        documented[200] = {"content": content, "description": "Success", "headers": _HEADERS} | (
            {"model": model} if model else {}
        )
    return documented
