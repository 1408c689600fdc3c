import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

from cache_builder.format import Cache
from tests.logit_server.raw_client import HEALTH, ROWS_HEAD, answer, connect, is_closed, refusal, served

LIMITS = {
    "max_body_bytes": 4000,
    "max_target_bytes": 500,
    "max_header_bytes": 2000,
    "max_headers": 20,
    "header_s": 600,
    "body_s": 600,
    "read_s": 600,
}
"""Sizes that are small, and times that no test waits for."""


@pytest.fixture(scope="module")
def strict(cache_path: Path) -> Iterator[str]:
    """A server with small sizes."""
    with served(cache_path, **LIMITS) as base:
        yield base


@pytest.fixture(scope="module")
def quick(cache_path: Path) -> Iterator[str]:
    """A server that waits for half a second at most."""
    with served(cache_path, header_s=0.5, body_s=0.5, keep_alive_s=1) as base:
        yield base


def row_body(*rows: int) -> bytes:
    return np.array(rows, "<u4").tobytes()


def post(body: bytes, *fields: bytes) -> bytes:
    head = b"".join(field + b"\r\n" for field in (*fields, b"Content-Length: %d" % len(body)))
    return ROWS_HEAD + head + b"\r\n" + body


def in_chunks(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


# Time


@pytest.mark.parametrize("sent", [b"G", b"GET /healthz HTTP/1.1\r\nHost", b"POST /x HTTP/1.1\r\n"])
def test_a_header_that_does_not_end_is_408(sent: bytes, quick: str) -> None:
    with connect(quick, sent) as client:
        assert "header" in refusal(client, 408, "SlowClientError")


def test_a_header_that_drips_is_408(quick: str) -> None:
    with connect(quick, b"GET /healthz HTTP/1.1\r\n") as client:
        thread = threading.Thread(target=drip, args=(client, b"X: y\r\n"))
        thread.start()
        assert "header was not there" in refusal(client, 408, "SlowClientError")
    thread.join()


def drip(client: socket.socket, piece: bytes) -> None:
    try:
        for _ in range(600):
            client.sendall(piece)
            time.sleep(0.1)
    except OSError:
        pass  # the server has closed, which is what the test waits for


def test_a_connection_that_says_nothing_is_closed_without_a_word(quick: str) -> None:
    with connect(quick) as client:
        assert client.receive(1) == b""


def test_empty_lines_are_no_request(quick: str) -> None:
    with connect(quick, HEALTH) as client:
        assert answer(client)[0].status == 200
        thread = threading.Thread(target=drip, args=(client, b"\r\n"))
        thread.start()
        assert is_closed(client)
    thread.join()


@pytest.mark.parametrize(
    "sent",
    [
        ROWS_HEAD + b"Content-Length: 4\r\n\r\n",
        ROWS_HEAD + b"Content-Length: 4\r\n\r\nab",
        ROWS_HEAD + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n",
        ROWS_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        ROWS_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: y\r\n",
    ],
)
def test_a_body_that_does_not_end_is_408(sent: bytes, quick: str) -> None:
    with connect(quick, sent) as client:
        if b"Expect" in sent:
            assert client.receive(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        refusal(client, 408, "SlowClientError")


def test_a_body_that_is_slow_but_comes_is_answered(cache_path: Path, cache: Cache) -> None:
    rows = [row % 100 for row in range(400)]
    body = row_body(*rows)
    with (
        served(cache_path, body_s=3, min_bytes_per_s=200) as base,
        connect(base, post(body)[: -len(body)]) as client,
    ):
        for start in range(0, len(body), 200):
            client.sendall(body[start : start + 200])
            time.sleep(0.5)
        response, content = answer(client)
        assert (response.status, content) == (200, cache.read_page(0)[rows].tobytes())


def test_a_body_that_comes_fast_and_then_stops_is_408(quick: str) -> None:
    # At the slowest rate that is allowed, these bytes may take a quarter of an hour.
    head = ROWS_HEAD.replace(b"kdcache.rows", b"kdcache.wide-rows") + b"Content-Length: 500000\r\n\r\n"
    with connect(quick, head + bytes(499_999)) as client:
        refusal(client, 408, "SlowClientError")


def test_an_answered_request_whose_body_does_not_come_ends_the_connection(quick: str) -> None:
    head = (
        b"POST /v1/caches/synthetic/records?veiw=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    )
    with connect(quick, head) as client:
        assert answer(client)[0].status in (415, 422)
        assert client.receive(1) == b""


def test_an_idle_connection_is_closed_and_a_used_one_is_not(quick: str) -> None:
    with connect(quick) as client:
        for _ in range(4):
            client.sendall(HEALTH)
            assert answer(client)[0].status == 200
            time.sleep(0.2)
        assert client.receive(1) == b""


# Size


def test_a_target_that_is_too_long_is_414(strict: str) -> None:
    with connect(strict, b"GET /" + b"a" * 500 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        refusal(client, 414, "TargetTooLongError")
    with connect(strict, b"GET /" + b"a" * 499 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        assert answer(client)[0].status == 404


def test_a_target_that_never_ends_is_414(strict: str) -> None:
    with connect(strict, b"GET /" + b"a" * 600) as client:
        assert "path and the query" in refusal(client, 414, "TargetTooLongError")


@pytest.mark.parametrize(
    "fields",
    [
        b"A: " + b"x" * 2000 + b"\r\n\r\n",
        b"A" * 2000 + b": x\r\n\r\n",
        b"A: x\r\n" * 21 + b"\r\n",
        b"A: x\r\n" * 22,
        b"A: " + b"x" * 100_000,
    ],
)
def test_a_header_that_is_too_large_is_431(fields: bytes, strict: str) -> None:
    with connect(strict, b"GET /healthz HTTP/1.1\r\n" + fields) as client:
        assert "send fewer and shorter fields" in refusal(client, 431, "HeaderTooLargeError")


def test_a_header_within_the_limits_is_read(strict: str) -> None:
    fields = b"A: x\r\n" * 18 + b"B: " + b"x" * 1500 + b"\r\n\r\n"
    with connect(strict, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + fields) as client:
        assert answer(client)[0].status == 200


def test_a_body_that_is_too_large_is_413_before_it_is_sent(strict: str) -> None:
    for more in (b"", b"Expect: 100-continue\r\n"):
        head = ROWS_HEAD + more + b"Content-Length: 4001\r\nX-Request-Id: mine\r\n\r\n"
        with connect(strict, head) as client:
            response, _ = answer(client)
            assert response.status == 413
            assert response.headers["x-request-id"] == "mine"
            assert client.receive(1) == b""


def test_a_body_within_the_limit_gets_100_continue(strict: str, cache: Cache) -> None:
    rows = [row % 100 for row in range(1000)]
    body = row_body(*rows)
    with connect(strict) as client:
        for _ in range(2):
            client.sendall(post(body, b"Expect: 100-continue")[: -len(body)])
            assert client.receive(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            response, content = answer(client)
            assert (response.status, content) == (200, cache.read_page(0)[rows].tobytes())


def test_a_body_that_was_not_asked_for_ends_the_connection(strict: str) -> None:
    head = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    with connect(strict, head) as client:
        response, _ = answer(client)
        assert (response.status, response.headers["connection"]) == (404, "close")
        assert client.receive(1) == b""


@pytest.mark.parametrize("path", [b"/v1/caches/synthetic/records", b"/nothing", b"/v1/caches"])
def test_a_body_in_chunks_is_refused_as_it_grows(path: bytes, strict: str) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/vnd.kdcache.rows\r\n"
    body = in_chunks(bytes(2000), bytes(2001))
    with connect(strict, head + b"Transfer-Encoding: chunked\r\n\r\n" + body) as client:
        assert "the limit of this server" in refusal(client, 413, "TooLargeError")


def test_a_body_in_chunks_within_the_limit_is_read(strict: str, cache: Cache) -> None:
    rows = [row % 100 for row in range(1000)]
    body = in_chunks(row_body(*rows[:400]), row_body(*rows[400:])) + b"0\r\nTrailer: x\r\n\r\n"
    with connect(strict) as client:
        for _ in range(2):
            client.sendall(ROWS_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
            assert answer(client)[1] == cache.read_page(0)[rows].tobytes()


def test_bodies_that_nobody_reads_take_no_room(cache_path: Path) -> None:
    with served(cache_path, max_bodies_bytes=8000) as base, contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(connect(base, HEALTH[:-2] + b"Content-Length: 7000\r\n\r\n"))
            assert answer(client)[0].status == 200
            client.sendall(bytes(7000) + HEALTH[:-2] + b"Content-Length: 7000\r\n\r\n")
            assert answer(client)[0].status == 200
            client.sendall(bytes(7000))
        client = stack.enter_context(connect(base, post(row_body(*[0] * 1500))))
        assert answer(client)[0].status == 200


@pytest.mark.parametrize(
    "body",
    [b"4;" + b"x" * 100_000 + b"\r\n", b"4" + b";x" * 50_000 + b"\r\nabcd\r\n", b"0\r\nA: " + b"x" * 100_000],
)
def test_what_stands_around_chunks_is_limited(body: bytes, strict: str) -> None:
    with connect(strict, ROWS_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body) as client:
        assert "larger chunks" in refusal(client, 431, "HeaderTooLargeError")


def test_chunks_of_one_byte_are_read(strict: str, cache: Cache) -> None:
    rows = [row % 100 for row in range(1000)]
    chunks = in_chunks(*(bytes([byte]) for byte in row_body(*rows)), b"")
    with connect(strict, ROWS_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks) as client:
        assert answer(client)[1] == cache.read_page(0)[rows].tobytes()


def test_fields_after_a_body_are_limited_too(strict: str) -> None:
    head = ROWS_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    with connect(strict, head + b"A: x\r\n" * 400) as client:
        assert "send fewer and shorter fields" in refusal(client, 431, "HeaderTooLargeError")


def test_a_client_that_does_not_stop_sending_still_hears_why(strict: str) -> None:
    with connect(strict, ROWS_HEAD + b"Content-Length: 5000000\r\n\r\n" + bytes(5_000_000)) as client:
        assert "the limit of this server" in refusal(client, 413, "TooLargeError")


# What is no HTTP


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
        ROWS_HEAD + b"Content-Length: -1\r\n\r\n",
        ROWS_HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        ROWS_HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        ROWS_HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ROWS_HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        ROWS_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET http://localhost:x/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_like_everything_else(
    sent: bytes, strict: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(strict, sent) as client:
        refusal(client, 400, "MalformedRequestError")
    assert caplog.text == ""


def test_a_refusal_of_head_has_no_body(strict: str) -> None:
    with connect(strict, b"HEAD / HTTP/1.1\r\n" + b"A: x\r\n" * 30 + b"\r\n") as client:
        received = b""
        while piece := client.receive(1000):
            received += piece
    assert received.startswith(b"HTTP/1.1 431")
    assert received.endswith(b"\r\n\r\n")


def test_an_upgrade_is_declined_and_the_request_answered(strict: str) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with connect(strict, head + b"\x81\x00") as client:
        response, _ = answer(client)
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert client.receive(1) == b""


@pytest.mark.parametrize("body", [row_body(1, 2), HEALTH])
@pytest.mark.parametrize("is_together", [True, False])
def test_a_body_is_never_taken_for_another_protocol(body: bytes, is_together: bool, strict: str) -> None:
    head = post(body, b"Connection: Upgrade", b"Upgrade: h2c")[: -len(body)]
    with connect(strict, head + body if is_together else head) as client:
        if not is_together:
            client.sendall(body)
        assert "without Upgrade" in refusal(client, 400, "MalformedRequestError")


def test_the_host_of_a_whole_url_is_the_one_that_counts(strict: str) -> None:
    for authority, status in [
        (b"localhost", 200),
        (b"[::1]:80", 200),
        (b"evil.example", 421),
        (b"localhost.evil.example:80", 421),
    ]:
        sent = b"GET http://%b/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" % authority
        with connect(strict, sent) as client:
            assert answer(client)[0].status == status
    with connect(strict, b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n") as client:
        assert answer(client)[0].status == 200


def test_old_clients_get_no_100_continue(strict: str, cache: Cache) -> None:
    sent = post(row_body(1), b"Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    with connect(strict, sent[:-4]) as client:
        time.sleep(0.1)
        client.sendall(sent[-4:])
        assert answer(client)[1] == cache.read_page(0)[1].tobytes()


# Several requests on one connection


def test_requests_may_be_pipelined(strict: str, cache: Cache) -> None:
    count = 2000
    page = cache.read_page(0)
    sent = b"".join(post(row_body(number % 100)) for number in range(count))
    with connect(strict) as client:
        sender = threading.Thread(target=client.sendall, args=(sent,))
        sender.start()
        for number in range(count):
            response, content = answer(client)
            assert (response.status, content) == (200, page[number % 100].tobytes())
        sender.join()
        client.sendall(HEALTH)
        assert answer(client)[0].status == 200


@pytest.mark.parametrize(
    ("last", "status", "error"),
    [
        (b"nonsense\r\n\r\n", 400, "MalformedRequestError"),
        (b"GET /" + b"a" * 600, 414, "TargetTooLongError"),
        (ROWS_HEAD + b"Content-Length: 9999\r\n\r\n", 413, "TooLargeError"),
        (ROWS_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + in_chunks(bytes(4001)), 413, "TooLargeError"),
    ],
)
def test_a_refusal_comes_after_the_answers_before_it(
    last: bytes, status: int, error: str, strict: str
) -> None:
    with connect(strict, HEALTH * 3 + last) as client:
        for _ in range(3):
            assert answer(client)[0].status == 200
        refusal(client, status, error)


def test_other_clients_are_answered_meanwhile(strict: str) -> None:
    slow = [connect(strict, ROWS_HEAD + b"Content-Length: 4\r\n\r\nab") for _ in range(20)]
    assert httpx2.get(f"{strict}/v1/caches").status_code == 200
    for client in slow:
        client.sendall(b"\0\0")
        assert answer(client)[0].status in (200, 422)
        client.close()
