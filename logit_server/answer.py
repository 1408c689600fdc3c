"""One answer on its way out: stamped with the headers of every answer, and counted."""

from __future__ import annotations

from starlette.types import Message, Send

from logit_server.page_headers import Header, page_headers


class Answer:
    """Sends the messages of one answer with more headers, and knows how far it has come."""

    __slots__ = ("_send", "_stamps", "is_finished", "size", "status")

    def __init__(self, send: Send, stamps: list[Header]) -> None:
        self._send = send
        self._stamps = stamps
        self.status = 0
        """0 until the answer has begun."""
        self.size = 0
        """Bytes of its body so far."""
        self.is_finished = False

    async def __call__(self, message: Message) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            message["headers"] = [*headers, *self._stamps, *page_headers(headers)]
            self.status = message["status"]
        else:
            self.size += len(message.get("body", b""))
            self.is_finished = not message.get("more_body")
        await self._send(message)
