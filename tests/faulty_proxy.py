"""A proxy before an object store that spoils answers in the ways that networks and servers do."""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal, get_args

Fault = Literal[
    "403", "404 bucket", "404 key", "500", "503", "silent", "stalled", "cut", "flipped", "reset", "no ranges"
]
FAULTS: tuple[Fault, ...] = get_args(Fault)

_CODES = {
    "403": ("403 Forbidden", "AccessDenied", "Access Denied"),
    "404 bucket": ("404 Not Found", "NoSuchBucket", "The specified bucket does not exist"),
    "404 key": ("404 Not Found", "NoSuchKey", "The specified key does not exist."),
    "500": ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
    "503": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
}
_OF_BODIES = ("stalled", "cut", "flipped")


class FaultyProxy:
    """Forwards HTTP to a server on this machine; ``fault`` says what becomes of the answers."""

    def __init__(self, upstream_port: int) -> None:
        self.fault: Fault | None = None
        self.share = 1.0
        """Of the requests, so many meet the fault."""
        self.sound_requests = 0
        """So many requests more are answered well before the fault begins."""
        self.port = 0
        self.requests = 0
        self._upstream_port = upstream_port
        self._random = random.Random(1)
        self._hangs = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which carries one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head, body = await _message(reader, has_body=True)
            self.requests += 1
            fault = self.fault if self._random.random() < self.share and self.sound_requests <= 0 else None
            self.sound_requests -= 1
            is_get = head.startswith(b"GET ") and b"list-type=2" not in head.split(b"\r\n")[0]
            if fault in _OF_BODIES and not is_get:
                fault = None
            await self._answer(fault, head, body, writer)
        writer.close()

    async def _answer(
        self, fault: Fault | None, head: bytes, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        if fault == "silent":
            await self._hangs.wait()
        elif fault == "reset":
            writer.transport.abort()
        elif fault == "404 key" and not head.startswith((b"GET ", b"HEAD ")):
            writer.write(b"".join(await self._upstream(head, body)))
        elif fault in _CODES:
            writer.write(_refusal(fault, is_head=head.startswith(b"HEAD ")))
        else:
            if fault == "no ranges":
                head = re.sub(rb"(?i)\r\nrange:[^\r]*", b"", head)
            answer, content = await self._upstream(head, body)
            writer.write(answer + self._spoilt(fault, content))
            if fault == "stalled":
                await writer.drain()
                await self._hangs.wait()
        await writer.drain()

    def _spoilt(self, fault: Fault | None, content: bytes) -> bytes:
        if fault in ("cut", "stalled"):
            return content[: len(content) // 2]
        if fault == "flipped" and content:
            at = self._random.randrange(len(content))
            return content[:at] + bytes([content[at] ^ 1 << self._random.randrange(8)]) + content[at + 1 :]
        return content

    async def _upstream(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        once = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head).replace(
            b"\r\n", b"\r\nConnection: close\r\n", 1
        )
        writer.write(once + body)
        await writer.drain()
        answer, content = await _message(reader, has_body=not head.startswith(b"HEAD "))
        writer.close()
        answer = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", answer)
        return answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), content


async def _message(reader: asyncio.StreamReader, *, has_body: bool) -> tuple[bytes, bytes]:
    """Head and body of a request or an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return head, await reader.readexactly(int(length.group(1))) if length and has_body else b""


def _refusal(fault: str | None, *, is_head: bool) -> bytes:
    status, code, message = _CODES[str(fault)]
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    return head if is_head else head + body


@asynccontextmanager
async def _listening(proxy: FaultyProxy) -> AsyncIterator[None]:
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        proxy._hangs.set()
        server.close()


@contextmanager
def faulty_proxy(upstream_port: int) -> Iterator[FaultyProxy]:
    """A proxy that runs in a thread of its own while the context lasts."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    proxy, over = FaultyProxy(upstream_port), asyncio.Event()

    async def run() -> None:
        async with _listening(proxy):
            ready.set()
            await over.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="faulty proxy")
    thread.start()
    assert ready.wait(30)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
