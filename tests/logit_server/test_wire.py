import asyncio
import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from cache_builder.format.codecs import Part
from cache_builder.format.wire import JSON, RECORDS, ROWS
from logit_server.errors import MediaTypeError, NotAcceptableError, RequestError, TooLargeError
from logit_server.wire import (
    answer_type,
    body_type,
    check_query,
    is_fresh,
    parse_rows,
    parse_selection,
    read_body,
)

OFFERS = (RECORDS, JSON)
PATIENT = settings(deadline=None)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", RECORDS),
        (b"*/*", RECORDS),
        (b"application/*", RECORDS),
        (b"application/json", JSON),
        (b"Application/JSON; charset=utf-8", JSON),
        (b"application/json;q=0.5, application/vnd.kdcache.records;q=0.4", JSON),
        (b"application/json, application/vnd.kdcache.records", RECORDS),
        (b"application/vnd.kdcache.records;q=0, */*", JSON),
        (b"text/html, */*;q=0.1", RECORDS),
        (b"application/json;q=nonsense, */*;q=0.1", RECORDS),
    ],
)
def test_the_client_chooses_and_the_server_breaks_ties(accept: bytes, expected: str) -> None:
    assert answer_type(accept, OFFERS) == expected


@pytest.mark.parametrize("accept", [b"text/html", b"image/*", b"*/*;q=0", b"application/json;q=0"])
def test_types_the_server_does_not_have(accept: bytes) -> None:
    with pytest.raises(NotAcceptableError, match=RECORDS):
        answer_type(accept, OFFERS)


@PATIENT
@given(st.binary(max_size=100))
def test_any_accept_header_has_an_answer(accept: bytes) -> None:
    with contextlib.suppress(NotAcceptableError):
        assert answer_type(accept, OFFERS) in OFFERS


@pytest.mark.parametrize(
    "given_type", [b"application/json", b"application/json; charset=utf-8", b"APPLICATION/JSON"]
)
def test_a_body_type_may_have_parameters(given_type: bytes) -> None:
    assert body_type(given_type, b"", (ROWS, JSON)) == JSON


@pytest.mark.parametrize(
    ("given_type", "encoding"), [(b"", b""), (b"text/plain", b""), (b"application/json", b"gzip")]
)
def test_bodies_that_are_not_read(given_type: bytes, encoding: bytes) -> None:
    with pytest.raises(MediaTypeError):
        body_type(given_type, encoding, (ROWS, JSON))


@PATIENT
@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_raw_rows_are_little_endian(rows: list[int]) -> None:
    assert parse_rows(np.array(rows, "<u4").tobytes(), 50).tolist() == rows


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_half_a_row_is_refused(length: int) -> None:
    with pytest.raises(RequestError, match=f"got {length} bytes"):
        parse_rows(bytes(length), 100)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(TooLargeError, match="at most 3"):
        parse_rows(bytes(16), 3)


@pytest.mark.parametrize(("query", "view"), [(b"", 0), (b"view=0", 0), (b"view=17", 17)])
def test_views(query: bytes, view: int) -> None:
    assert parse_selection(query) == (view, Part.WHOLE)


def test_parts() -> None:
    assert parse_selection(b"part=own&view=3") == (3, Part.OWN)
    assert parse_selection(b"view=3&part=shared") == (3, Part.SHARED)
    with pytest.raises(RequestError, match="part is 'mine': it must be whole, shared, own"):
        parse_selection(b"part=mine")


@pytest.mark.parametrize(
    "query", [b"view=", b"view=-1", b"view=1.0", b"view=x", b"view=1e3", b"veiw=1", b"view=%FF", b"view=\xb2"]
)
def test_what_is_no_view(query: bytes) -> None:
    with pytest.raises(RequestError, match="view"):
        parse_selection(query)


def test_the_key_that_was_meant_is_named() -> None:
    with pytest.raises(RequestError, match=r"unknown query parameter 'viwe'; did you mean view\?"):
        parse_selection(b"viwe=1")
    with pytest.raises(RequestError, match=r"unknown query parameter 'format'; this path takes view, part"):
        parse_selection(b"format=1")


def test_a_query_with_thousands_of_keys_is_looked_through_once() -> None:
    """Looking for each key among all others would take minutes."""
    query = b"&".join(b"k%d=" % number for number in range(200_000))
    check_query(query)
    with pytest.raises(RequestError, match="'k7' is given 3 times"):
        check_query(query + b"&k7=&k7=")


def test_a_view_of_a_million_digits_is_refused() -> None:
    with pytest.raises(RequestError):
        parse_selection(b"view=" + b"1" * 1_000_000)


def received(*chunks: bytes, disconnect: bool = False) -> list[Message]:
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": disconnect or index < len(chunks) - 1}
        for index, chunk in enumerate(chunks)
    ]
    return [*messages, {"type": "http.disconnect"}]


def body_of(messages: list[Message], limit: int) -> tuple[bytes, list[Message]]:
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0)

    return asyncio.run(read_body(receive, limit)), left


@PATIENT
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_a_body_is_joined_from_its_chunks(chunks: list[bytes]) -> None:
    assert body_of(received(*chunks), 100)[0] == b"".join(chunks)


@pytest.mark.parametrize("chunks", [[b"12345"], [b"123", b"45"], [b"", b"12345", b""]])
def test_a_body_beyond_the_limit_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(TooLargeError, match="more than 4 bytes"):
        body_of(received(*chunks), 4)


def test_a_body_beyond_the_limit_is_not_read_to_its_end() -> None:
    left = received(b"123", b"456", b"789")

    async def receive() -> Message:
        return left.pop(0)

    with pytest.raises(TooLargeError):
        asyncio.run(read_body(receive, 4))
    assert left[0]["body"] == b"789"


def test_half_a_body_is_no_body() -> None:
    with pytest.raises(ClientDisconnect):
        body_of(received(b"12", disconnect=True), 100)


@pytest.mark.parametrize(
    ("given_tags", "fresh"),
    [
        ("", False),
        ('"a"', True),
        ('"b", "a"', True),
        ('W/"a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
    ],
)
def test_if_none_match(given_tags: str, fresh: bool) -> None:
    scope = {"type": "http", "headers": [(b"if-none-match", given_tags.encode())]}
    assert is_fresh(Request(scope), '"a"') is fresh
