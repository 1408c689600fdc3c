"""A client that does no more than count bytes: sockets that stay open, a bounded number of requests."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import uvloop

from cache_builder.format.wire import RECORDS, ROWS

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Requests:
    """What is asked for, in turn."""

    path: str
    """With its query."""
    bodies: list[bytes]
    accept: str = RECORDS


Load = Callable[[str, Requests, int, int], list[float]]
"""(base URL, what to ask for, connections, requests in all) -> the seconds that each request took."""


def request_bytes(url: str, body: bytes, accept: str = RECORDS) -> bytes:
    """A whole HTTP request, ready to be sent."""
    split = urllib.parse.urlsplit(url)
    head = (
        f"POST {split.path}?{split.query} HTTP/1.1\r\nhost: {split.netloc}\r\naccept: {accept}\r\n"
        f"content-type: {ROWS}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Asking(asyncio.Protocol):
    """One connection that sends its requests one after another, each when the one before is answered."""

    def __init__(self, requests: list[bytes], count: int | None = None) -> None:
        """``count``: requests in all, after which ``done`` is; None: until the connection is aborted."""
        self._requests = requests
        self._left = count
        self._missing = 0
        self._head = b""
        self._asked_at = 0.0
        self.answers = 0
        self.status = b""
        self.taken_s: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._left is not None and not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def _ask(self) -> None:
        if self._left is not None:
            if not self._left:
                self.done.set_result(None)
                return
            self._left -= 1
        self._asked_at = time.perf_counter()
        self._transport.write(self._requests[self.answers % len(self._requests)])

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            data = self._after_head(self._head + data)
        self._missing -= len(data)
        if not self._missing and not self._head:
            self.taken_s.append(time.perf_counter() - self._asked_at)
            self.answers += 1
            self._ask()

    def _after_head(self, data: bytes) -> bytes:
        head, end, body = data.partition(b"\r\n\r\n")
        if not end:
            self._head = data
            return b""
        length = _LENGTH.search(head)
        assert length is not None, head
        self._head, self.status = b"", head[9:12]
        assert self.status == b"200", data
        self._missing = int(length[1])
        return body


def http_load(base: str, requests: Requests, connections: int, count: int) -> list[float]:
    """The seconds of ``count`` requests over so many connections, each of which waits for its answers."""
    return uvloop.run(_loaded(base, requests, connections, count))


async def _loaded(base: str, requests: Requests, connections: int, count: int) -> list[float]:
    split = urllib.parse.urlsplit(base)
    whole = [request_bytes(base + requests.path, body, requests.accept) for body in requests.bodies]
    share = -(-count // connections)
    loop = asyncio.get_running_loop()
    pairs = [
        await loop.create_connection(lambda: Asking(whole, share), split.hostname or "", split.port or 0)
        for _ in range(connections)
    ]
    await asyncio.gather(*(asking.done for _, asking in pairs))
    for transport, _ in pairs:
        transport.abort()
    return [second for _, asking in pairs for second in asking.taken_s]
