"""The OpenAPI document: what the routes say of themselves, and what holds for all of them.

Errors, headers, 304 and who may ask are the same mechanism on every path, so they are written down once here
and not at each route.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from cache_builder.format.wire import CACHES_PATH, COUNTED, DIGEST_HEADER, ID_HEADER, RECORDS
from logit_server.access import scope_of
from logit_server.admission import HEALTH_PATHS, is_of_this_moment
from logit_server.openapi_errors import OF_EVERY_PATH, PROBLEM_SCHEMAS, error_response
from logit_server.state import State

_BELOW = f"{CACHES_PATH}/"

_HEADERS: dict[str, tuple[str, str]] = {
    "X-Request-Id": ("The client's own id of the request, or one that the server's log has.", "string"),
    ID_HEADER: ("The cache_id of the cache that the answer is about.", "string"),
    DIGEST_HEADER: (
        "XXH3-64 of the bytes that are sent (RFC 9530), as they are after Content-Encoding. It is missing "
        "where a long answer is coded while it is sent.",
        "string",
    ),
    "ETag": ("Names the answer; send it in If-None-Match, or in If-Range with a Range.", "string"),
    "Cache-Control": ("Answers under a cache_id never change; others are asked for again.", "string"),
    "Vary": ("The request's headers that the answer depends on.", "string"),
    "Accept-Ranges": ("bytes, where the answer may be asked for in parts.", "string"),
    "Content-Range": ("Which bytes these are, or how many there are.", "string"),
    "Retry-After": ("Seconds after which to try again.", "integer"),
    "WWW-Authenticate": ("How to send a token.", "string"),
}

_CONDITIONS = {
    "If-None-Match": "ETags of answers that the client has; 304 where one of them is still right.",
    "Range": "One range of bytes, such as bytes=1000-, to go on with a download that broke off.",
    "If-Range": "The ETag of what the client has a part of: Range holds only for it.",
}

_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of the server, of the scope that the path needs.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The same token as the password, with any name: browsers ask for one.",
    },
}


class DocumentedApi(FastAPI):
    """An application whose OpenAPI document is complete."""

    def __init__(self, of: State, **arguments: Any) -> None:
        # Names of functions stay when paths change: programs that are made from the document go by them.
        super().__init__(generate_unique_id_function=lambda route: route.name, **arguments)
        self._of = of

    def openapi(self) -> dict[str, Any]:
        """The document, made when it is first asked for."""
        if self.openapi_schema is None:
            _complete(super().openapi(), self._of)
        assert self.openapi_schema is not None  # FastAPI has just set it
        return self.openapi_schema


def _complete(document: dict[str, Any], state: State) -> None:
    components = document["components"]
    components["schemas"] |= PROBLEM_SCHEMAS
    components["headers"] = {name: _header(*about) for name, about in _HEADERS.items()}
    components["parameters"] = {name: _condition(name, about) for name, about in _CONDITIONS.items()}
    components["securitySchemes"] = _SCHEMES
    found: set[int] = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["security"] = _security(path, is_open=state.access.tokens.is_empty)
            found |= _complete_responses(path, method, operation)
            _complete_parameters(operation)
            _bound(operation, state)
    components["responses"] = {_name(status): error_response(status) for status in sorted(found)}


def _header(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


def _condition(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _complete_parameters(operation: dict[str, Any]) -> None:
    """Add the headers that an operation reads, which its responses tell."""
    responses, names = operation["responses"], []
    names += ["If-None-Match"] if "304" in responses else []
    names += ["Range", "If-Range"] if "206" in responses else []
    references = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    parameters = [*operation.get("parameters", ()), *references]
    for parameter in parameters:
        if parameter.get("name") == "name" and parameter["in"] == "path":
            parameter["description"] = "The cache's name or its cache_id"
    if parameters:
        operation["parameters"] = parameters


def _security(path: str, *, is_open: bool) -> list[dict[str, list[str]]]:
    """Who may ask: everybody where the server has no tokens, and for health, which then names no cache."""
    scope = [str(scope_of(path))]
    needed: list[dict[str, list[str]]] = [{"bearer": scope}, {"basic": scope}]
    return [{}, *needed] if is_open or path in HEALTH_PATHS else needed


def _complete_responses(path: str, method: str, operation: dict[str, Any]) -> set[int]:
    """Give the responses of an operation their headers, and gives the statuses of its errors."""
    responses: dict[str, Any] = operation["responses"]
    errors = {int(status) for status in responses if int(status) >= 400} | OF_EVERY_PATH
    errors -= {401, 403} if path in HEALTH_PATHS else set()
    good = {status: response for status, response in responses.items() if int(status) < 400}
    names = ["X-Request-Id", *([ID_HEADER] if path.startswith(_BELOW) else [])]
    if method == "get" and not is_of_this_moment(path):
        names += ["ETag", "Cache-Control", "Vary"]
        good["304"] = {"description": "The client has the answer already (If-None-Match)."}
    if path.startswith(_BELOW):
        names.append(DIGEST_HEADER)
    if 416 in errors:
        names.append("Accept-Ranges")
        good["206"] = {"description": "The bytes of Range.", "content": _ranged(good["200"])}
    for status, response in good.items():
        kept = [name for name in names if status != "304" or name != DIGEST_HEADER]
        more = ["Content-Range"] if status == "206" else []
        response["headers"] = _references([*kept, *more]) | response.get("headers", {})
    refused = {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in errors}
    operation["responses"] = dict(sorted((good | refused).items()))
    return errors


def _ranged(whole: dict[str, Any]) -> dict[str, Any]:
    """What may be sent in parts: the bytes of records where there are some, else the whole."""
    content = whole["content"]
    return {kind: content[kind] for kind in (RECORDS, COUNTED) if kind in content} or content


def _references(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _name(status: int) -> str:
    """Of a response in the components."""
    return f"Error{status}"


def _bound(operation: dict[str, Any], state: State) -> None:
    """Say how much the server takes at once: its settings know, not the routes."""
    content = operation.get("requestBody", {}).get("content", {})
    most = state.settings.max_ids
    for body in content.values():
        for kind in body["schema"].get("oneOf", []):
            for values in kind["properties"].values():
                values["maxItems"] = most
