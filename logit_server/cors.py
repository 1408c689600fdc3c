"""Web pages of other origins: none may read the answers, but those of ``--cors-origin``."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from cache_builder.format.wire import DIGEST_HEADER, ID_HEADER
from logit_server.at_once import AtOnce
from logit_server.board import UNMATCHED
from logit_server.counters import Counters
from logit_server.envelope import Envelope
from logit_server.errors import OriginError
from logit_server.page_headers import ON_ALL
from logit_server.problems import problem_response
from logit_server.request_ids import request_id_of

_SENT = ("Accept", "Authorization", "Content-Type", "If-None-Match", "Range", "X-Request-Id")
_SHOWN = (ID_HEADER, DIGEST_HEADER, "ETag", "Retry-After", "X-Request-Id")


class Cors(CORSMiddleware):
    """Answers browsers that ask in advance, without a token: they never send one with that question."""

    def __init__(self, app: Envelope, counters: Counters, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=_SENT,
            expose_headers=_SHOWN,
        )
        self._counters = counters

    def at_once(self, scope: Scope) -> AtOnce | None:
        """As :meth:`Envelope.at_once`, of requests that no web page sends."""
        if any(key == b"origin" for key, _ in scope["headers"]):
            return None
        inner: Envelope = self.app  # type: ignore[assignment]
        return inner.at_once(scope)

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to such a question."""
        request_id = request_id_of(request_headers.raw)
        response = super().preflight_response(request_headers)
        if response.status_code != HTTPStatus.OK:
            # "Disallowed CORS origin", method or headers.
            why = OriginError(bytes(response.body).decode())
            response = problem_response(why, request_id.decode())
            response.headers["vary"] = "Origin"
        self._counters.add(("requests", UNMATCHED, str(response.status_code)))
        stamps = (*ON_ALL, (b"x-request-id", request_id))
        response.headers.update({key.decode(): value.decode() for key, value in stamps})
        return response


def with_cors(app: Envelope, counters: Counters, origins: tuple[str, ...]) -> ASGIApp:
    """The application, open to web pages of these origins; itself where there are none."""
    return Cors(app, counters, origins) if origins else app
