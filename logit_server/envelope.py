"""What is around every request: who it is, whether there is room for it, which cache it is about."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from cache_builder.format.wire import CACHES_PATH, ID_HEADER
from logit_server.admission import is_of_this_moment
from logit_server.answer import Answer
from logit_server.at_once import AtOnce, Body, Prepared, Shortcut, header_lines
from logit_server.errors import REQUEST_ID_KEY
from logit_server.hosts import Hosts
from logit_server.page_headers import ON_ALL, Header
from logit_server.peers import Peers
from logit_server.problems import respond_to
from logit_server.request_ids import new_request_id, request_id_of, sane_request_id
from logit_server.served_caches import Catalog
from logit_server.state import CATALOG_KEY, HEAD_KEY, SCOPE_KEY, State
from logit_server.traffic import Traffic
from logit_server.wire import check_path, check_query, check_query_keys, parse_query

_REPLACED = "\N{REPLACEMENT CHARACTER}"
"""What stands in a path for bytes that are not UTF-8, or for itself."""
_DOCUMENT_PATH = "/openapi.json"
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

    def __init__(self, app: ASGIApp, state: State, shortcuts: Mapping[tuple[str, str], Shortcut]) -> None:
        self.app = app
        self._state = state
        self._shortcuts = shortcuts
        self._admission = state.admission
        limit = state.settings.requests_per_peer
        self._peers = None if limit is None else Peers(limit)
        self._traffic = Traffic(state)
        self._ended = self._traffic.ended
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
            application = await self._application(scope, stamps)
            await application(scope, receive, answer.send)
        except ClientDisconnect:
            # Nobody is left to answer, and clients that stop or lose patience are no event for the log.
            pass
        except Exception as error:  # noqa: BLE001 - the table has a status for every exception
            await self._answer(error, scope, receive, answer)
        finally:
            self._admission.leave()
            if peers is not None:
                peers.leave(scope)
            self._ended(scope, answer, perf_counter() - began)

    async def _application(self, scope: Scope, stamps: list[Header]) -> ASGIApp:
        """What answers a request, once it is checked."""
        is_known = self._checked(scope, stamps)
        if not is_known and scope["path"].startswith(_BELOW):
            catalog = await self._caught_up(scope)
            is_known = _stamp_cache(stamps, scope["path"], catalog)
        shortcut = self._shortcuts.get((scope["method"], scope["path"])) if is_known else None
        return shortcut or self.app

    def _checked(self, scope: Scope, stamps: list[Header]) -> bool:
        """Check who sends a request, to whom, what it asks and whether there is room for it.

        Gives whether it is about a cache that the sender may know of, which is named in the stamps.
        """
        path: str = scope["path"]
        self._hosts.check(scope)
        scope[CATALOG_KEY] = catalog = self._state.access.check(scope, self._state.catalog)
        is_known = _stamp_cache(stamps, path, catalog)
        if not is_of_this_moment(path):
            self._admission.check_room()
            if self._peers is not None:
                self._peers.check_room(scope)
        if scope["query_string"]:
            check_query(scope["query_string"])
            if path == _DOCUMENT_PATH:  # a route of FastAPI's own
                check_query_keys(parse_query(scope["query_string"]), ())
        if _REPLACED in path:
            check_path(scope["raw_path"])
        return is_known

    async def _caught_up(self, scope: Scope) -> Catalog:
        """The caches by now: another worker may have noticed already that one was added or extended."""
        if self._state.catch_up is not None:
            await self._state.catch_up()
        catalog = scope[CATALOG_KEY] = self._state.access.check(scope, self._state.catalog)
        return catalog

    def at_once(self, scope: Scope) -> AtOnce | None:
        """What answers all requests with this header at once; None where they go through :meth:`__call__`."""
        shortcut = self._shortcuts.get((scope["method"], scope["path"]))
        if shortcut is None or self._state.settings.access_log:
            return None
        scope[SCOPE_KEY] = self._state
        stamps: list[Header] = []
        try:
            find = shortcut.at_once(scope) if self._checked(scope, stamps) else None
        except Exception:  # noqa: BLE001 - it is met again on the ordinary way, which has a status for it
            return None
        return None if find is None else self._stamped(find, scope, stamps)

    def _stamped(self, find: AtOnce, scope: Scope, stamps: list[Header]) -> AtOnce:
        state, check, catalog = self._state, self._state.access.check, scope[CATALOG_KEY]
        admission, noted = self._admission, self._traffic.answered_at_once
        given, lines = sane_request_id(scope["headers"]), header_lines((*ON_ALL, *stamps))

        def answer(body: Body) -> Prepared | None:
            began = perf_counter()
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
            noted(scope, len(found.body), perf_counter() - began)
            return Prepared(b"%bx-request-id: %b\r\n%b" % (found.lines, request_id, lines), found.body)

        return answer

    async def _answer(self, error: Exception, scope: Scope, receive: Receive, answer: Answer) -> None:
        if answer.status and not answer.is_finished:
            # The server below breaks the connection off: half an answer must not pass for a whole one.
            raise error
        if not answer.status:
            response = await respond_to(Request(scope), error)
            await response(scope, receive, answer.send)


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
