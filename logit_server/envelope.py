"""What is around every request: who it is, whether there is room for it, which cache it is about."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from cache_builder.format.wire import CACHES_PATH, ID_HEADER
from logit_server.admission import ALWAYS_ANSWERED
from logit_server.answer import Answer
from logit_server.errors import REQUEST_ID_KEY, respond_to
from logit_server.hosts import Hosts
from logit_server.page_headers import ON_ALL, Header
from logit_server.peers import Peers
from logit_server.request_ids import request_id_of
from logit_server.served_caches import Catalog
from logit_server.state import CATALOG_KEY, HEAD_KEY, SCOPE_KEY, State
from logit_server.traffic import Traffic
from logit_server.wire import check_no_key_twice

_BELOW = f"{CACHES_PATH}/"
_ID_HEADER = ID_HEADER.lower().encode()


class Envelope:
    """An ASGI application around another one.

    Gives every answer ``X-Request-Id`` (the client's own, where it sent a sane one) and, under
    ``/v1/caches/{name}``, ``X-KDCache-Id``; refuses requests to other names than the server's, and those
    without a token where there are tokens; refuses requests beyond ``max_in_flight`` with 503, and those of
    one address beyond ``requests_per_peer`` with 429; answers HEAD wherever GET is answered; counts all.

    ``shortcuts``: applications by (method, path). The application inside routes these to the same ones,
    but the frameworks between take 45 µs of a request that needs 55 (2 cores of an AMD EPYC, 2026-11-22).
    """

    def __init__(self, app: ASGIApp, state: State, shortcuts: Mapping[tuple[str, str], ASGIApp]) -> None:
        self.app = app
        self._state = state
        self._shortcuts = shortcuts
        self._admission = state.admission
        limit = state.settings.requests_per_peer
        self._peers = None if limit is None else Peers(limit)
        self._traffic = Traffic(state)
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
        answer = Answer(send, stamps)
        began = perf_counter()
        self._admission.enter()
        peers = self._peers
        if peers is not None:
            peers.enter(scope)
        try:
            self._hosts.check(scope)
            scope[CATALOG_KEY] = catalog = self._state.access.check(scope, self._state.catalog)
            is_known = _stamp_cache(stamps, scope["path"], catalog)
            if scope["path"] not in ALWAYS_ANSWERED:
                self._admission.check_room()
                if peers is not None:
                    peers.check_room(scope)
            if b"&" in scope["query_string"]:
                check_no_key_twice(scope["query_string"])
            shortcut = self._shortcuts.get((scope["method"], scope["path"])) if is_known else None
            await (shortcut or self.app)(scope, receive, answer)
        except ClientDisconnect:
            # Nobody is left to answer, and clients that stop or lose patience are no event for the log.
            pass
        except Exception as error:  # noqa: BLE001 - the table has a status for every exception
            await self._answer(error, scope, receive, answer)
        finally:
            self._admission.leave()
            if peers is not None:
                peers.leave(scope)
            self._traffic.ended(scope, answer, perf_counter() - began)

    async def _answer(self, error: Exception, scope: Scope, receive: Receive, answer: Answer) -> None:
        if answer.status and not answer.is_finished:
            # The server below breaks the connection off: half an answer must not pass for a whole one.
            raise error
        if not answer.status:
            self._traffic.refused(scope, error)
            response = await respond_to(Request(scope), error)
            await response(scope, receive, answer)


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
