"""Answers for which nothing has to be waited for: they need no task, no messages and no framework.

A client that trains asks the same question again and again: header for header the same, other rows. What is
the same is looked at once (:data:`AtOnce` is made), and each body is then answered by a plain call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

from logit_server.page_headers import Header

Body = bytes | bytearray | memoryview


class Prepared(NamedTuple):
    """An answer of status 200 that waits for nothing."""

    lines: bytes
    """Of its header, without the first and the last."""
    body: bytes | memoryview


AtOnce = Callable[[Body], Prepared | None]
"""Answers the whole body of a request; None where that takes time, or is no answer of status 200.

None is no refusal: the request then goes through the application, which knows what is wrong with it."""


class Shortcut(Protocol):
    """An ASGI application that can answer some requests at once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

    def at_once(self, scope: Scope) -> AtOnce | None:
        """What answers all requests with this header; None where they have to wait for something.

        It and what it gives may raise what the application raises.
        """


def header_lines(fields: Iterable[Header]) -> bytes:
    """Fields of a header as they are sent."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])
