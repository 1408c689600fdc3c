"""What is around every request: who it is, whether there is room for it, which cache it is about."""

from __future__ import annotations

import itertools
import re
import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from logit_server.errors import REQUEST_ID_KEY, OverloadedError, error_response
from logit_server.state import HEAD_KEY, SCOPE_KEY, State

_PREFIX = "/v1/caches/"
_HEALTH = ("/healthz", "/readyz")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Envelope:
    """An ASGI application around another one.

    Gives every answer ``X-Request-Id`` (the client's own, where it sent a sane one) and, under
    ``/v1/caches/{name}``, ``X-KDCache-Id``; refuses requests beyond ``max_in_flight`` with 503; answers HEAD
    wherever GET is answered.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state
        self._in_flight = 0
        self._limit = state.settings.max_in_flight
        self._ids = (
            f"{run}-{count:x}".encode() for run in [secrets.token_hex(4)] for count in itertools.count(1)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._prepared(scope)
        stamped = self._stamping(scope, send)
        if self._in_flight >= self._limit and scope["path"] not in _HEALTH:
            await error_response(self._overloaded())(scope, receive, stamped)
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, stamped)
        finally:
            self._in_flight -= 1

    def _prepared(self, scope: Scope) -> Scope:
        scope[SCOPE_KEY] = self._state
        if scope["method"] != "HEAD":
            return scope
        # A copy: the server below still sees HEAD in its own scope and sends no body.
        return {**scope, "method": "GET", HEAD_KEY: True}

    def _stamping(self, scope: Scope, send: Send) -> Send:
        request_id = self._request_id(scope)
        scope[REQUEST_ID_KEY] = request_id.decode()
        stamps = [(b"x-request-id", request_id)]
        path: str = scope["path"]
        if path.startswith(_PREFIX):
            served = self._state.catalog.get(path[len(_PREFIX) :].partition("/")[0])
            if served is not None:
                stamps.append((b"x-kdcache-id", served.cache_id.encode()))

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *stamps]
            await send(message)

        return stamped

    def _request_id(self, scope: Scope) -> bytes:
        given = Headers(scope=scope).get("x-request-id", "").encode("latin-1")
        return given if _REQUEST_ID.fullmatch(given) else next(self._ids)

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            f"{self._in_flight} requests are being answered, the limit of this worker; try again in a second"
        )
