"""Answers compressed for clients that ask for it: tables, manifests and arrays, not records.

Packed records are the output of a coder already; gzip and zstd would cost more time than they save.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from numcodecs.zstd import Zstd
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cache_builder.format.content_digest import content_digest
from cache_builder.format.wire import DIGEST_HEADER, JSON, NDJSON, NPY, PROBLEM
from logit_server.state import HEAD_KEY

_TYPES = {JSON, PROBLEM, NDJSON, NPY, "text/html", "text/css", "text/javascript", "image/svg+xml"}
_LEAST_BYTES = 1024
# A millisecond or less.
_AT_ONCE_BYTES = 2**16
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 4
_GZIP_FORMAT = 31
_DIGEST = DIGEST_HEADER.lower().encode()


class Compressed:
    """An ASGI application around another one, whose answers it compresses (zstd, else gzip).

    A body that comes in pieces is always gzip, which every client reads piece by piece.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, compressing(scope, send) if scope["type"] == "http" else send)


def compressing(scope: Scope, send: Send) -> Send:
    """``send`` for the answer to a request, compressed as its client accepts it."""
    offered = dict(scope["headers"]).get(b"accept-encoding", b"").decode("latin-1")
    return _Compressing(send, acceptable(offered), bool(scope.get(HEAD_KEY)))


def acceptable(header: str) -> set[str]:
    """Those of zstd and gzip that an Accept-Encoding header (RFC 9110, 12.5.3) allows by name."""
    found = set()
    for item in header.split(","):
        coding, _, quality = item.replace(" ", "").lower().partition(";q=")
        is_refused = quality != "" and not quality.strip("0.")
        if coding in {"zstd", "gzip"} and not is_refused:
            found.add(coding)
    return found


class _Compressing:
    """Sends the messages of one answer, its body compressed where that is worth it."""

    def __init__(self, send: Send, codings: set[str], is_head: bool) -> None:
        self._send, self._codings, self._is_head = send, codings, is_head
        self._start: Message | None = None
        self._compress: Callable[[bytes, bool], bytes] | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if _is_compressible(message):
                self._start = message
                return
            if message["status"] == 304:
                message = _varying(message)
        elif message["type"] == "http.response.body":
            message = await self._body(message)
        await self._send(message)

    async def _body(self, message: Message) -> Message:
        body, is_last = bytes(message.get("body", b"")), not message.get("more_body")
        if self._start is not None:
            start, self._start = self._start, None
            # Of a body that comes in pieces, HEAD is answered without any.
            is_whole = is_last and not (self._is_head and not _has_length(start))
            coding = None if is_whole and len(body) < _LEAST_BYTES else self._choose(is_whole)
            if coding is None:
                await self._send(_varying(start))
                return message
            self._compress = _whole_zstd if coding == "zstd" else _gzip()
            body = await _run(self._compress, body, is_last)
            await self._send(_encoded(start, coding, body if is_whole else None))
        elif self._compress is not None:
            body = await _run(self._compress, body, is_last)
        return {**message, "body": body}

    def _choose(self, is_whole: bool) -> str | None:
        if is_whole and "zstd" in self._codings:
            return "zstd"
        return "gzip" if "gzip" in self._codings else None


def _is_compressible(start: Message) -> bool:
    headers = dict(start.get("headers", ()))
    essence = headers.get(b"content-type", b"").partition(b";")[0].decode("latin-1").strip()
    is_free = b"content-encoding" not in headers and b"content-range" not in headers
    return start["status"] != 304 and essence in _TYPES and is_free


def _has_length(start: Message) -> bool:
    return any(key == b"content-length" for key, _ in start["headers"])


def _varying(start: Message) -> Message:
    return {**start, "headers": [*start.get("headers", ()), (b"vary", b"Accept-Encoding")]}


def _encoded(start: Message, coding: str, body: bytes | None) -> Message:
    """The start of an answer whose body is coded; ``body``: all of it, where that is known."""
    dropped = {b"content-length", _DIGEST, b"accept-ranges"}
    kept = [header for header in start["headers"] if header[0] not in dropped]
    kept = [(key, _weak(value) if key == b"etag" else value) for key, value in kept]
    headers = [*kept, (b"content-encoding", coding.encode()), (b"vary", b"Accept-Encoding")]
    if body is not None:
        headers += [(b"content-length", b"%d" % len(body)), (_DIGEST, content_digest(body).encode())]
    return {**start, "headers": headers}


def _weak(tag: bytes) -> bytes:
    """The same content in other bytes."""
    return tag if tag.startswith(b"W/") else b"W/" + tag


async def _run(compress: Callable[[bytes, bool], bytes], body: bytes, is_last: bool) -> bytes:
    """Compress, in a thread where other requests would wait for it."""
    if len(body) <= _AT_ONCE_BYTES:
        return compress(body, is_last)
    return await run_in_threadpool(compress, body, is_last)


def _whole_zstd(body: bytes, _is_last: bool) -> bytes:
    return bytes(Zstd(level=_ZSTD_LEVEL).encode(body))


def _gzip() -> Callable[[bytes, bool], bytes]:
    compressor: Any = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)

    def compress(body: bytes, is_last: bool) -> bytes:
        return bytes(compressor.compress(body) + (compressor.flush() if is_last else b""))

    return compress
