"""Entity tags of answers that are made anew each time: lists, documents, pages."""

from __future__ import annotations

import xxhash
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cache_builder.format.wire import JSON
from logit_server.admission import is_of_this_moment
from logit_server.wire import tag_is_among

_TYPES = (JSON.encode(), b"text/html")
_ABOUT_THE_BODY = {b"content-length", b"content-type"}


class Tagged:
    """An ASGI application around another one, whose answers to GET get an ``ETag`` of their bytes.

    Who has these bytes already is answered with 304. Not for answers with a tag of their own, for those
    that nobody may keep, for health, and for what comes in pieces.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "GET" and not is_of_this_moment(scope["path"]):
            known = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
            send = _Tagging(send, known)
        await self._app(scope, receive, send)


class _Tagging:
    """Sends the messages of one answer."""

    def __init__(self, send: Send, known: str) -> None:
        self._send, self._known = send, known
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_taggable(message):
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            if not message.get("more_body"):
                tag = f'"{xxhash.xxh3_64_hexdigest(message.get("body", b""))}"'
                start = _with_tag(start, tag)
                if tag_is_among(self._known, tag):
                    start, message = _not_modified(start), {**message, "body": b""}
            await self._send(start)
        await self._send(message)


def _is_taggable(start: Message) -> bool:
    headers = dict(start.get("headers", ()))
    is_kept = b"no-store" not in headers.get(b"cache-control", b"")
    is_of_type = headers.get(b"content-type", b"").startswith(_TYPES)
    return start["status"] == 200 and is_of_type and is_kept and b"etag" not in headers


def _with_tag(start: Message, tag: str) -> Message:
    headers = [*start["headers"], (b"etag", tag.encode())]
    if b"cache-control" not in dict(headers):
        headers.append((b"cache-control", b"no-cache"))
    return {**start, "headers": headers}


def _not_modified(start: Message) -> Message:
    kept = [header for header in start["headers"] if header[0] not in _ABOUT_THE_BODY]
    return {**start, "status": 304, "headers": kept}
