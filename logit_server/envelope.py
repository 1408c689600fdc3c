"""What is around every request: who it is, whether there is room for it, which cache it is about."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cache_builder.format.wire import CACHES_PATH, ID_HEADER
from logit_server.admission import HEALTH_PATHS
from logit_server.at_once import Answer, AtOnce, Body, Shortcut, header_lines
from logit_server.errors import REQUEST_ID_KEY, respond_to
from logit_server.hosts import Hosts
from logit_server.page_headers import ON_ALL, Header, page_headers
from logit_server.request_ids import new_request_id, request_id_of, sane_request_id
from logit_server.served_caches import Catalog
from logit_server.state import CATALOG_KEY, HEAD_KEY, SCOPE_KEY, State
from logit_server.wire import check_no_key_twice

_PROGRESS = "kdcache.progress"
_BELOW = f"{CACHES_PATH}/"
_ID_HEADER = ID_HEADER.lower().encode()


class Envelope:
    """An ASGI application around another one.

    Gives every answer ``X-Request-Id`` (the client's own, where it sent a sane one) and, under
    ``/v1/caches/{name}``, ``X-KDCache-Id``; refuses requests to other names than the server's, and those
    without a token where there are tokens; refuses requests beyond ``max_in_flight`` with 503; answers HEAD
    wherever GET is answered.

    ``shortcuts``: applications by (method, path). The application inside routes these to the same ones,
    but the frameworks between take 45 µs of a request that needs 55 (2 cores of an AMD EPYC, 2026-11-22).
    """

    def __init__(self, app: ASGIApp, state: State, shortcuts: Mapping[tuple[str, str], Shortcut]) -> None:
        self.app = app
        self._state = state
        self._shortcuts = shortcuts
        self._admission = state.admission
        self._hosts = Hosts(state.settings, has_tokens=not state.access.tokens.is_empty)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # A copy: the server below still sees HEAD in its own scope and sends no body.
            scope = {**scope, "method": "GET", HEAD_KEY: True}
        scope[SCOPE_KEY] = self._state
        stamps = _stamps(scope)
        send = _stamping(scope, send, stamps)
        self._admission.enter()
        try:
            await (self._checked(scope, stamps) or self.app)(scope, receive, send)
        except ClientDisconnect:
            # Nobody is left to answer, and clients that stop or lose patience are no event for the log.
            pass
        except Exception as error:  # noqa: BLE001 - the table has a status for every exception
            await self._answer(error, scope, receive, send)
        finally:
            self._admission.leave()

    def at_once(self, scope: Scope) -> AtOnce | None:
        """What answers all requests with this header at once; None where they go through :meth:`__call__`."""
        if (scope["method"], scope["path"]) not in self._shortcuts:
            return None
        scope[SCOPE_KEY] = self._state
        stamps: list[Header] = []
        try:
            shortcut = self._checked(scope, stamps)
            find = None if shortcut is None else shortcut.at_once(scope)
        except Exception:  # noqa: BLE001 - it is met again on the ordinary way, which has a status for it
            return None
        return None if find is None else self._stamped(find, scope, stamps)

    def _stamped(self, find: AtOnce, scope: Scope, stamps: list[Header]) -> AtOnce:
        state, check, catalog, admission = (
            self._state,
            self._state.access.check,
            scope[CATALOG_KEY],
            self._admission,
        )
        given, lines = sane_request_id(scope["headers"]), header_lines((*ON_ALL, *stamps))

        def answer(body: Body) -> Answer | None:
            try:
                # Tokens are withdrawn and caches come and go while a connection lasts.
                if admission.is_full or check(scope, state.catalog) is not catalog:
                    return None
                found = find(body)
            except Exception:  # noqa: BLE001 - as above
                return None
            if found is None:
                return None
            request_id = given or new_request_id()
            return Answer(b"%bx-request-id: %b\r\n%b" % (found.lines, request_id, lines), found.body)

        return answer

    def _checked(self, scope: Scope, stamps: list[Header]) -> Shortcut | None:
        """Check who sends a request, to whom, and whether there is room for it; gives its shortcut."""
        path: str = scope["path"]
        self._hosts.check(scope)
        scope[CATALOG_KEY] = catalog = self._state.access.check(scope, self._state.catalog)
        is_known = _stamp_cache(stamps, path, catalog)
        if path not in HEALTH_PATHS:
            self._admission.check_room()
        if b"&" in scope["query_string"]:
            check_no_key_twice(scope["query_string"])
        return self._shortcuts.get((scope["method"], path)) if is_known else None

    async def _answer(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        progress = scope.get(_PROGRESS)
        if progress == "started":
            # The server below breaks the connection off: half an answer must not pass for a whole one.
            raise error
        if progress is None:
            response = await respond_to(Request(scope), error)
            await response(scope, receive, send)


def _stamps(scope: Scope) -> list[Header]:
    """The headers of every answer."""
    request_id = request_id_of(scope["headers"])
    scope[REQUEST_ID_KEY] = request_id.decode()
    return [(b"x-request-id", request_id), *ON_ALL]


def _stamp_cache(stamps: list[Header], path: str, catalog: Catalog) -> bool:
    """Name the cache that a path is about, if the sender may know of it; gives whether there is one."""
    name = path[len(_BELOW) :].partition("/")[0] if path.startswith(_BELOW) else ""
    if (served := catalog.get(name)) is None:
        return False
    stamps.append((_ID_HEADER, served.cache_id.encode()))
    return True


def _stamping(scope: Scope, send: Send, stamps: list[Header]) -> Send:
    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            message["headers"] = [*headers, *stamps, *page_headers(headers)]
            scope[_PROGRESS] = "started"
        elif not message.get("more_body"):
            scope[_PROGRESS] = "finished"
        await send(message)

    return stamped
