import asyncio
import contextlib
import time
from pathlib import Path

import httpx2
import pytest

from cache_builder.format import open_cache
from logit_server.connections import Connections
from logit_server.errors import OverloadedError
from logit_server.settings import Settings
from tests.logit_server.raw_client import (
    HEALTH,
    ROWS_HEAD,
    Client,
    answer,
    connect,
    is_closed,
    refusal,
    served,
)

WHOLE = b"GET /v1/caches/synthetic/views/0/records HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIST = b"GET /v1/caches HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEADER = b"GET /healthz HTTP/1.1\r\n"


# Clients that do not read


def test_a_client_that_does_not_read_is_closed(large_path: Path) -> None:
    with (
        served(large_path, read_s=0.3, max_in_flight=1) as base,
        connect(base, WHOLE, receive_buffer=4096) as client,
    ):
        assert client.receive(1)
        wait_until_answered(base)
        assert is_closed(client)


def wait_until_answered(base: str) -> None:
    deadline = time.monotonic() + 60
    while httpx2.get(f"{base}/v1/caches").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_that_reads_slowly_gets_everything(large_path: Path) -> None:
    expected = open_cache(large_path).read_page(0).tobytes()
    with (
        served(large_path, read_s=0.3, min_bytes_per_s=1) as base,
        connect(base, WHOLE, receive_buffer=2**18) as client,
    ):
        received = client.receive()
        began = time.monotonic()
        while len(received) < len(expected):
            if time.monotonic() < began + 3:
                time.sleep(0.05)
            piece = client.receive()
            assert piece, "the server has closed the connection"
            received += piece
        assert received.endswith(expected)


def test_an_idle_client_with_an_unread_answer_is_closed(large_path: Path) -> None:
    """The whole answer has been written, and is more than the systems on both sides take."""
    body = bytes(4 * 200_000)
    head = ROWS_HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        served(large_path, read_s=0.3, max_ids=200_000) as base,
        connect(base, head + body, receive_buffer=4096) as client,
    ):
        assert client.receive(1)
        time.sleep(1.5)
        assert received_until_reset(client) < 200_000 * open_cache(large_path).record_bytes


def test_what_nobody_reads_is_bounded(large_path: Path) -> None:
    with (
        served(large_path, max_unread_bytes=1, read_s=600) as base,
        connect(base, WHOLE, receive_buffer=4096) as client,
    ):
        assert client.receive(1)
        time.sleep(1)
        assert received_until_reset(client) < 200_000 * open_cache(large_path).record_bytes


def received_until_reset(client: Client) -> int:
    """How many bytes a connection still brings before it is broken off."""
    received = 0
    try:
        while piece := client.receive():
            received += len(piece)
    except ConnectionResetError:
        return received
    raise AssertionError("the connection was not broken off")


# Many connections


def test_the_connection_that_has_waited_longest_gives_way(cache_path: Path) -> None:
    with served(cache_path, max_connections=2) as base, connect(base, HEALTH) as idle:
        assert answer(idle)[0].status == 200
        with connect(base, HEALTH) as used, connect(base, HEALTH) as new:
            assert answer(used)[0].status == answer(new)[0].status == 200
            assert idle.receive() == b""
            used.sendall(HEALTH)
            assert answer(used)[0].status == 200


def test_a_slow_header_gives_way_with_an_answer(cache_path: Path) -> None:
    with (
        served(cache_path, max_connections=1) as base,
        connect(base, HEADER) as slow,
        connect(base, HEALTH) as new,
    ):
        assert answer(new)[0].status == 200
        refusal(slow, 503, "OverloadedError")


def test_beyond_all_connections_only_health_is_answered(cache_path: Path) -> None:
    head = ROWS_HEAD + b"Content-Length: 4\r\n\r\n"
    with (
        served(cache_path, max_connections=2) as base,
        connect(base, head) as one,
        connect(base, head) as other,
    ):
        for path in ("/healthz", "/livez", "/healthz"):
            response = httpx2.get(base + path)
            assert (response.status_code, response.headers["connection"]) == (200, "close")
        assert [one["check"] for one in httpx2.get(f"{base}/readyz").json()["failed"]] == ["limits"]
        response = httpx2.get(f"{base}/v1/caches")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["error"] == "OverloadedError"
        for client in (one, other):
            client.sendall(bytes(4))
            assert answer(client)[0].status == 200
        assert httpx2.get(f"{base}/v1/caches").status_code == 200


def test_the_bodies_of_all_requests_are_bounded(cache_path: Path) -> None:
    head = ROWS_HEAD + b"Content-Length: 4000\r\n\r\n"
    with served(cache_path, max_bodies_bytes=6000) as base:
        with connect(base, head + bytes(3996)) as first:
            time.sleep(0.3)
            with connect(base, head + bytes(3996)) as second:
                refusal(second, 503, "OverloadedError")
            first.sendall(bytes(4))
            assert answer(first)[0].status == 200
            for _ in range(3):  # what was answered is held no longer
                first.sendall(head + bytes(4000))
                assert answer(first)[0].status == 200
        with connect(base, head + bytes(3996)), contextlib.suppress(OSError):
            time.sleep(0.3)
        with connect(base, head + bytes(4000)) as last:  # nor what was left
            assert answer(last)[0].status == 200


def test_a_flood_of_connections_leaves_the_server_alive(cache_path: Path) -> None:
    with served(cache_path, max_connections=20) as base, contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(base))
        assert httpx2.get(f"{base}/v1/caches").status_code == 200
        assert httpx2.get(f"{base}/readyz").status_code == 200


# The counts themselves


class Recorder:
    """A connection that notes what happens to it."""

    peer = "203.0.113.1"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def check_time(self, now: float) -> None:
        self.seen.append("checked")
        raise ValueError("a connection that cannot be looked at")

    def give_way(self) -> None:
        self.seen.append("gave way")

    def abort(self) -> None:
        self.seen.append("aborted")


def test_a_connection_that_cannot_be_looked_at_does_not_end_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connections = Connections(Settings(header_s=0.01))
    first, second = Recorder(), Recorder()

    async def watch() -> None:
        async with connections.watched():
            connections.add(first)
            connections.add(second)
            while not (first.seen and second.seen):
                await asyncio.sleep(0.01)

    asyncio.run(watch())
    assert first.seen[:2] == second.seen[:2] == ["checked", "aborted"]
    assert "could not be checked" in caplog.text


def test_what_is_removed_counts_no_longer() -> None:
    connections = Connections(Settings.checked(max_connections=1, max_unread_bytes=100))
    for _ in range(3):
        recorder = Recorder()
        assert connections.add(recorder)
        connections.works(recorder)
        connections.is_unread(recorder, 60)
        connections.remove(recorder)
        connections.remove(recorder)
        assert recorder.seen == []


def test_who_has_left_answers_unread_for_longest_is_closed() -> None:
    connections = Connections(Settings.checked(max_unread_bytes=100))
    first, second, third = Recorder(), Recorder(), Recorder()
    connections.is_unread(first, 50)
    connections.is_unread(second, 50)
    connections.was_read(first)
    connections.is_unread(first, 50)
    assert first.seen == second.seen == []
    connections.is_unread(third, 20)
    assert (first.seen, second.seen, third.seen) == ([], ["aborted"], [])


def test_bodies_that_are_refused_count_until_they_are_let_go() -> None:
    connections = Connections(Settings.checked(max_bodies_bytes=10))
    connections.hold(10)
    with pytest.raises(OverloadedError, match="10 bytes"):
        connections.hold(1)
    connections.release(11)
    connections.hold(10)
