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
        self._refusals = state.refusals
        self._routes = frozenset(self._counters.board.routes)
        self._is_logged = state.settings.access_log

    def ended(self, scope: Scope, answer: Answer, seconds: float) -> None:
        """Note the end of a request, however it ended."""
        size = 0 if HEAD_KEY in scope else answer.size
        if answer.status:
            self._counters.note(self._route_of(scope), answer.status, seconds, size)
        if not answer.is_finished:
            self._counters.add(ABANDONED)
        if self._is_logged:
            self._log(scope, answer, seconds, size)

    def refused(self, scope: Scope, error: Exception) -> None:
        """Note the error that a request is answered with, where it refuses the request."""
        self._refusals.of(error, scope[REQUEST_ID_KEY], peer_of(scope))

    def _route_of(self, scope: Scope) -> str:
        """The template of a request's path: paths themselves are without number."""
        template: str | None = scope.get(ROUTE_KEY)
        if template is None:
            route, path = scope.get("route"), scope["path"]
            template = getattr(route, "path_format", path)
            if path.startswith(f"{STATIC}/"):
                template = STATIC
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
