"""Requests as they end: counted by route and status, and logged where the access log is on."""

from __future__ import annotations

import logging

from starlette.types import Scope

from cache_builder.format.wire import CACHES_PATH
from logit_server.answer import Answer
from logit_server.board import ABANDONED, UNMATCHED
from logit_server.errors import REQUEST_ID_KEY
from logit_server.log import tell
from logit_server.peers import peer_of
from logit_server.state import CATALOG_KEY, HEAD_KEY, ROUTE_KEY, ROWS_KEY, State

STATIC = "/static"


class Traffic:
    """Of one worker."""

    def __init__(self, state: State) -> None:
        self._counters = state.counters
        self._routes = frozenset(self._counters.board.routes)
        self._is_logged = state.settings.access_log

    def ended(self, scope: Scope, answer: Answer, seconds: float) -> None:
        """Note the end of a request, however it ended."""
        size = 0 if HEAD_KEY in scope else answer.size
        if answer.status:
            route = scope.get(ROUTE_KEY) or self._route_of(scope)
            self._counters.note(route, answer.status, seconds, size)
        if not answer.is_finished:
            self._counters.add(ABANDONED)
        if self._is_logged:
            self._log(scope, answer, seconds, size)

    def answered_at_once(self, scope: Scope, size: int, seconds: float) -> None:
        """Note a request that was answered from memory, without its headers being looked at again."""
        self._counters.note(scope[ROUTE_KEY], 200, seconds, size)

    def _route_of(self, scope: Scope) -> str:
        """The template of a request's path: paths themselves are without number."""
        path: str = scope["path"]
        if path.startswith(f"{STATIC}/"):
            return STATIC
        template = scope.get(ROUTE_KEY) or getattr(scope.get("route"), "path_format", path)
        return template if template in self._routes else UNMATCHED

    def _log(self, scope: Scope, answer: Answer, seconds: float, size: int) -> None:
        # Neither path nor query: an id of a sample may say something of a person, and who mistypes a request
        # may put a token there.
        method = "HEAD" if HEAD_KEY in scope else scope["method"]
        route = self._route_of(scope)
        tell(
            logging.INFO, "request", "%s %s %s, %.1f ms, %d bytes, %s",
            method, route, answer.status or "without an answer", 1000 * seconds, size, peer_of(scope),
            request_id=scope[REQUEST_ID_KEY], method=method, route=route, cache=_cache_of(scope),
            status=answer.status or None, duration=round(seconds, 6), bytes=size,
            rows=scope.get(ROWS_KEY, 0), peer=peer_of(scope), finished=answer.is_finished,
        )  # fmt: skip


def _cache_of(scope: Scope) -> str | None:
    """The name of the served cache that a request is about."""
    path = scope["path"]
    if CATALOG_KEY not in scope or not path.startswith(f"{CACHES_PATH}/"):
        return None
    served = scope[CATALOG_KEY].get(path[len(CACHES_PATH) + 1 :].partition("/")[0])
    return None if served is None else served.name
