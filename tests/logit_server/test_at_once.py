"""Answers at once are those of the ordinary way, whatever comes before and after them on a connection."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from cache_builder.format import Cache
from cache_builder.format.content_digest import content_digest
from logit_server.app import create_app
from logit_server.run import base_url, bound, server_config, serving
from logit_server.settings import Settings
from logit_server.tokens import hash_of
from tests.logit_server.raw_client import ROWS_HEAD, Client, answer, connect

CHANGING = {"date", "x-request-id"}


def post(rows: list[int], *fields: bytes, view: int = 1) -> bytes:
    body = np.array(rows, "<u4").tobytes()
    head = ROWS_HEAD.replace(b"/records", b"/records?view=%d" % view)
    lines = b"".join(field + b"\r\n" for field in (*fields, b"Content-Length: %d" % len(body)))
    return head + lines + b"\r\n" + body


def fields_of(response: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in response.headers.items() if key.lower() not in CHANGING}


@pytest.fixture
def connection(url: str) -> Iterator[Client]:
    """A connection whose view is in memory."""
    with connect(url) as opened:
        opened.sendall(post([0, 50, 99]))
        answer(opened)
        yield opened


def test_headers_and_bytes_are_those_of_the_ordinary_way(url: str, connection: Client, cache: Cache) -> None:
    rows = [7, 99, 0, 7]
    with connect(url, post(rows, b"Connection: close")) as other:
        ordinary, records = answer(other)
    expected = fields_of(ordinary) | {"content-digest": content_digest(records)}
    assert expected.pop("connection") == "close"
    assert records == cache.read_page(1)[rows].tobytes()
    for _ in range(3):  # parsed and held, and twice like the one before
        connection.sendall(post(rows))
        response, found = answer(connection)
        assert (response.status, found) == (200, records)
        assert fields_of(response) == expected


def test_bodies_under_one_header_are_answered_each_for_itself(connection: Client, cache: Cache) -> None:
    page = cache.read_page(1)
    for rows in ([1, 2], [3, 4], [99, 98], [5], [6], [0] * 50, [1, 2]):
        connection.sendall(post(rows))
        assert answer(connection)[1] == page[rows].tobytes()


def test_every_answer_has_a_request_id_of_its_own_or_that_of_the_client(connection: Client) -> None:
    seen = []
    for _ in range(4):
        connection.sendall(post([1]))
        seen.append(answer(connection)[0].headers["x-request-id"])
    assert len(set(seen)) == 4
    for _ in range(3):
        connection.sendall(post([1], b"X-Request-Id: mine-1"))
        assert answer(connection)[0].headers["x-request-id"] == "mine-1"


def test_a_wrong_body_under_a_known_header_is_refused_and_the_next_one_answered(
    connection: Client, cache: Cache
) -> None:
    for wrong, detail in (([1, 100], "100"), ([2**32 - 1, 0], "4294967295")):
        for _ in range(2):
            connection.sendall(post([1, 2]))
            assert answer(connection)[0].status == 200
        connection.sendall(post(wrong))
        response, body = answer(connection)
        assert response.status == 422
        assert detail in json.loads(body)["detail"]
    connection.sendall(post([1, 2]))
    assert answer(connection)[1] == cache.read_page(1)[[1, 2]].tobytes()


def test_requests_that_come_at_once_are_answered_in_their_order(connection: Client, cache: Cache) -> None:
    page = cache.read_page(1)
    order = [[row % 100] for row in range(150)]
    for _ in range(2):
        connection.sendall(b"".join(post(rows) for rows in order))
        for rows in order:
            assert answer(connection)[1] == page[rows].tobytes()


@pytest.mark.parametrize("cut", [1, 30, -8, -5, -1])
def test_requests_in_pieces_are_the_same(connection: Client, cache: Cache, cut: int) -> None:
    whole, page = post([11, 12]), cache.read_page(1)
    for _ in range(3):
        connection.sendall(whole)
        assert answer(connection)[1] == page[[11, 12]].tobytes()
        connection.sendall(whole[:cut])
        time.sleep(0.02)  # so that the pieces come apart
        connection.sendall(whole[cut:])
        assert answer(connection)[1] == page[[11, 12]].tobytes()


def test_a_body_that_is_longer_than_its_header_says_is_no_part_of_it(connection: Client) -> None:
    connection.sendall(post([1]))
    answer(connection)
    connection.sendall(post([1]) + post([2, 3]))
    assert answer(connection)[0].status == 200
    assert answer(connection)[0].status == 200
    connection.sendall(post([1]) + b"nonsense\r\n\r\n")
    assert answer(connection)[0].status == 200
    assert answer(connection)[0].status == 400


def test_a_token_that_is_withdrawn_is_refused_on_a_connection_that_lasts(
    cache_path: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    book = {"a": "one", "b": "two"}

    def write(names: str) -> None:
        lines = [f'{n} = {{ hash = "{hash_of(book[n].encode())}", scopes = ["read"] }}\n' for n in names]
        tokens.write_text("".join(lines))

    write("ab")
    mine = b"Authorization: Bearer one"
    settings = Settings(caches=(str(cache_path),), port=0, tokens=tokens)
    with serving(settings) as base, connect(base) as client:
        for _ in range(3):
            client.sendall(post([1], mine))
            assert answer(client)[0].status == 200
        write("b")
        status = 200
        for _ in range(10_000):
            client.sendall(post([1], mine))
            status = answer(client)[0].status
            if status != 200:
                break
        assert status == 401


def test_an_application_around_ours_sees_every_request(cache_path: Path) -> None:
    seen: list[str] = []
    settings = Settings(caches=(str(cache_path),), port=0)
    inner = create_app(settings)

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])
        await inner(scope, receive, send)

    with running(around, settings) as base, connect(base) as client:
        for _ in range(4):
            client.sendall(post([1]))
            assert answer(client)[0].status == 200
    assert seen.count("http") == 4


@contextlib.contextmanager
def running(app: ASGIApp, settings: Settings) -> Iterator[str]:
    """A server of any application, as our own one is run."""
    server = uvicorn.Server(server_config(app, settings))
    with bound(settings) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield base_url(listener)
        finally:
            server.should_exit = True
            thread.join()


def test_a_request_waits_for_no_later_one_that_is_incomplete(connection: Client, cache: Cache) -> None:
    page, head = cache.read_page(1), post([1])[:-8]
    json_body = b'{"rows": [5, 6]}'
    slow = ROWS_HEAD.replace(b"/records", b"/records?view=1").replace(b"vnd.kdcache.rows", b"json")
    slow += b"Accept: application/vnd.kdcache.records\r\nContent-Length: %d\r\n\r\n" % len(json_body)
    for _ in range(3):
        # The first takes a thread; the second waits for it; of the third, there is a part of the header.
        connection.sendall(slow + json_body + post([7]) + head)
        assert answer(connection)[1] == page[[5, 6]].tobytes()
        assert answer(connection)[1] == page[[7]].tobytes()
        connection.sendall(post([1])[-8:])
        assert answer(connection)[1] == page[[1]].tobytes()
