import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from logit_server.tagging import Tagged


def sent(
    *bodies: bytes, known: bytes = b"", status: int = 200, headers: dict[bytes, bytes] | None = None
) -> list[Message]:
    """What is sent of an answer in these pieces."""
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given = {b"content-type": b"application/json"} | (headers or {})
        await send({"type": "http.response.start", "status": status, "headers": list(given.items())})
        for number, body in enumerate(bodies):
            await send({"type": "http.response.body", "body": body, "more_body": number + 1 < len(bodies)})

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [(b"if-none-match", known)]}
    asyncio.run(Tagged(app)(scope, receive, send))
    return messages


def tag_of(message: Message) -> bytes | None:
    return dict(message["headers"]).get(b"etag")


def test_the_tag_is_of_the_body() -> None:
    one, again, other = sent(b"a")[0], sent(b"a")[0], sent(b"b")[0]
    assert tag_of(one) == tag_of(again) != tag_of(other)


def test_what_is_known_is_not_sent() -> None:
    tag = tag_of(sent(b"a")[0])
    assert tag is not None
    start, body = sent(b"a", known=tag)
    assert (start["status"], body["body"]) == (304, b"")
    assert b"content-type" not in dict(start["headers"])


@pytest.mark.parametrize(
    ("bodies", "status", "headers"),
    [
        ([b"a", b"b"], 200, {}),
        ([b"a"], 404, {}),
        ([b"a"], 200, {b"cache-control": b"no-store"}),
        ([b"a"], 200, {b"content-type": b"image/png"}),
    ],
)
def test_other_answers_pass_as_they_are(
    bodies: list[bytes], status: int, headers: dict[bytes, bytes]
) -> None:
    start, *rest = sent(*bodies, known=b"*", status=status, headers=headers)
    assert (start["status"], tag_of(start)) == (status, None)
    assert [message["body"] for message in rest] == bodies


def test_a_tag_of_the_answer_itself_stands() -> None:
    assert tag_of(sent(b"a", known=b"*", headers={b"etag": b'"own"'})[0]) == b'"own"'
