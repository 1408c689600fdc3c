"""What is around every request: who it is, whether there is room for it, which cache it is about."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cache_builder.format.wire import CACHES_PATH, ID_HEADER
from logit_server.admission import HEALTH_PATHS
from logit_server.errors import REQUEST_ID_KEY, UnauthorizedError, respond_to
from logit_server.request_ids import request_id_of
from logit_server.state import HEAD_KEY, SCOPE_KEY, State
from logit_server.wire import check_no_key_twice

_PROGRESS = "kdcache.progress"
_BELOW = f"{CACHES_PATH}/"
_ID_HEADER = ID_HEADER.lower().encode()


class Envelope:
    """An ASGI application around another one.

    Gives every answer ``X-Request-Id`` (the client's own, where it sent a sane one) and, under
    ``/v1/caches/{name}``, ``X-KDCache-Id``; refuses requests beyond ``max_in_flight`` with 503; answers HEAD
    wherever GET is answered.

    ``shortcuts``: applications by (method, path). The application inside routes these to the same ones,
    but the frameworks between take 45 µs of a request that needs 55 (2 cores of an AMD EPYC, 2026-11-22).
    """

    def __init__(self, app: ASGIApp, state: State, shortcuts: Mapping[tuple[str, str], ASGIApp]) -> None:
        self.app = app
        self._state = state
        self._shortcuts = shortcuts
        self._admission = state.admission
        token = state.settings.token
        self._token = token.get_secret_value().encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # A copy: the server below still sees HEAD in its own scope and sends no body.
            scope = {**scope, "method": "GET", HEAD_KEY: True}
        scope[SCOPE_KEY] = self._state
        send = self._stamping(scope, send)
        self._admission.enter()
        try:
            if scope["path"] not in HEALTH_PATHS:
                self._admission.check_room()
            self._check_token(scope)
            if b"&" in scope["query_string"]:
                check_no_key_twice(scope["query_string"])
            app = self._shortcuts.get((scope["method"], scope["path"]), self.app)
            await app(scope, receive, send)
        except ClientDisconnect:
            # Nobody is left to answer, and clients that stop or lose patience are no event for the log.
            pass
        except Exception as error:  # noqa: BLE001 - the table has a status for every exception
            await self._answer(error, scope, receive, send)
        finally:
            self._admission.leave()

    async def _answer(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        progress = scope.get(_PROGRESS)
        if progress == "started":
            # The server below breaks the connection off: half an answer must not pass for a whole one.
            raise error
        if progress is None:
            response = await respond_to(Request(scope), error)
            await response(scope, receive, send)

    def _check_token(self, scope: Scope) -> None:
        if self._token is None or scope["path"] in HEALTH_PATHS:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise UnauthorizedError(
                "this server answers only with its token: send it as `Authorization: Bearer TOKEN` "
                "(kdtrain takes it from KDCACHE_TOKEN)"
            )

    def _stamping(self, scope: Scope, send: Send) -> Send:
        request_id = request_id_of(scope["headers"])
        scope[REQUEST_ID_KEY] = request_id.decode()
        stamps = [(b"x-request-id", request_id)]
        path: str = scope["path"]
        name = path[len(_BELOW) :].partition("/")[0] if path.startswith(_BELOW) else ""
        if (served := self._state.catalog.get(name)) is not None:
            stamps.append((_ID_HEADER, served.cache_id.encode()))

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *stamps]
                scope[_PROGRESS] = "started"
            elif not message.get("more_body"):
                scope[_PROGRESS] = "finished"
            await send(message)

        return stamped
