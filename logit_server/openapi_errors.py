"""What the OpenAPI document says about errors, by status."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from cache_builder.format.wire import PROBLEM
from logit_server.problems import PROBLEMS_PATH
from logit_server.readiness import Failed

_MEANINGS = {
    400: ("MalformedRequestError", "What came is no request of HTTP/1.1."),
    401: ("UnauthorizedError", "The server has tokens, and the request carries none of them."),
    403: ("ForbiddenError", "The token is good for other things."),
    404: ("UnknownSampleError", "No such cache, array or sample id; the first few unknown ids are named."),
    406: ("NotAcceptableError", "The client takes none of the types this path answers with."),
    408: ("SlowClientError", "The request did not come within its time."),
    410: ("ReplacedCacheError", "Another cache lies by now where the served one was."),
    413: ("TooLargeError", "More ids, records or bytes than this server takes in one request."),
    414: ("TargetTooLongError", "The path and the query are longer than this server takes."),
    415: ("MediaTypeError", "The body is of a type this path does not read."),
    416: ("RangeError", "The range of bytes begins beyond the end."),
    421: ("HostError", "The request was sent to a name that this server does not have."),
    422: ("RequestError", "A row, view, range or key of the query is out of range or unknown."),
    429: ("BusyPeerError", "Too many requests of one client at once: try again after Retry-After seconds."),
    431: ("HeaderTooLargeError", "The header is larger than this server takes."),
    500: ("CorruptCacheError", "Stored bytes fail their checksum; the tile is named. Never a wrong number."),
    503: (
        "OverloadedError",
        "Too many requests at once, or the storage did not answer: try again after Retry-After seconds.",
    ),
}

OF_EVERY_PATH = {400, 401, 403, 408, 413, 414, 421, 422, 429, 431, 500, 503}
"""What any request may be answered with: protocol, access and admission refuse before a route is found."""

_HEADERS = {401: ["WWW-Authenticate"], 416: ["Content-Range"], 429: ["Retry-After"],
            503: ["Retry-After"]}  # fmt: skip


class Problem(BaseModel):
    """The body of every error: problem details of RFC 9457."""

    type: str = Field(json_schema_extra={"format": "uri-reference"})
    """A place on this server's page of errors, or ``about:blank`` for what HTTP itself defines."""
    title: str
    """What every error of this type has in common."""
    status: int = Field(ge=400, le=599)
    """The status of the answer."""
    detail: str
    """A sentence: where, what was found, what was expected, what to do."""
    error: str
    """Class of the error, e.g. ``UnknownSampleError``, for programs."""
    request_id: str
    """The answer's X-Request-Id, which the server's log has."""
    failed: list[Failed] | None = None
    """Of ``/readyz`` and a cache's ``ready``: what is not so, one by one."""


_SCHEMA = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
PROBLEM_SCHEMAS = {**_SCHEMA.pop("$defs"), "Problem": _SCHEMA}
"""By name, as the components of a document."""


def error_response(status: int) -> dict[str, Any]:
    """The response of a status, for the components of the document."""
    phrase = HTTPStatus(status).phrase
    error, meaning = _MEANINGS.get(status, (phrase.title().replace(" ", ""), phrase))
    shown = {
        "type": f"{PROBLEMS_PATH}#{error}" if status in _MEANINGS else "about:blank",
        "title": meaning.partition(":")[0].removesuffix("."),
        "status": status,
        "detail": meaning,
        "error": error,
        "request_id": "5f2c8a10-1a",
    }
    names = ["X-Request-Id", *_HEADERS.get(status, ())]
    return {
        "description": meaning,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": shown}},
    }
