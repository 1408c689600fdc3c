"""Clients that speak HTTP by hand: slowly, wrongly, or not at all."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache_builder.format.wire import PROBLEM
from logit_server.run import serving
from logit_server.settings import Settings

PATIENCE_S = 60.0
"""Seconds that a test waits for what must come."""
_POST = b"POST /v1/caches/synthetic/records HTTP/1.1\r\nHost: localhost\r\n"
ROWS_HEAD = _POST + b"Content-Type: application/vnd.kdcache.rows\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def served(cache_path: Path, **settings: Any) -> Iterator[str]:
    """A server of one cache with these settings; gives its base URL."""
    with serving(Settings.checked(caches=(str(cache_path),), port=0, **settings)) as base:
        yield base


class _Received(io.RawIOBase):
    """What a socket receives, as a file."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.recv_into(buffer)


class _Reader(io.BufferedReader):
    """Stays open when an answer has been read: the next one may be in its buffer already."""

    def close(self) -> None:
        pass


class Client(socket.socket):
    """A connection that reads one answer after another."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = _Reader(_Received(self))

    def makefile(self, *_: Any, **__: Any) -> Any:
        return self._reader

    def receive(self, size: int = 2**16) -> bytes:
        """Some bytes, none where the server has closed the connection."""
        return self._reader.read1(size)


def connect(base: str, data: bytes = b"", *, receive_buffer: int | None = None) -> Client:
    """A connection that has sent ``data``."""
    split = urllib.parse.urlsplit(base)
    client = Client()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(PATIENCE_S)
    client.connect((split.hostname or "", split.port or 0))
    client.sendall(data)
    return client


def answer(client: Client, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """The next answer on a connection, and its body."""
    response = http.client.HTTPResponse(client, method=method)
    response.begin()
    return response, response.read()


def refusal(client: Client, status: int, error: str, method: str = "GET") -> str:
    """Check that a connection is refused like every other request, and then closed; gives the detail."""
    response, body = answer(client, method)
    assert response.status == status, body
    assert response.headers["content-type"] == PROBLEM
    assert response.headers["connection"] == "close"
    assert response.headers["x-request-id"]
    assert response.headers["cache-control"] == "no-store"
    said = json.loads(body)
    assert (said["error"], said["status"]) == (error, status)
    assert said["request_id"] == response.headers["x-request-id"]
    assert is_closed(client)
    return str(said["detail"])


def is_closed(client: Client) -> bool:
    """Whether the server ends a connection; what it still sends is thrown away."""
    try:
        while client.receive():
            pass
    except TimeoutError:
        return False
    except OSError:
        pass  # reset, and so ended too
    return True
