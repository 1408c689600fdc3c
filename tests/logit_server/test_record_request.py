import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logit_server.errors import RequestError, TooLargeError
from logit_server.record_request import RecordRequest, is_large, parse_record_request

PATIENT = settings(deadline=None)


@PATIENT
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_ids_arrive_as_they_were_sent(ids: list[str]) -> None:
    assert parse_record_request(json.dumps({"ids": ids}).encode(), 1000).ids == ids


NOT_RECORD_REQUESTS = [
    b"",
    b"\xff\xfe",
    b"null",
    b"3",
    b"[]",
    b"{}",
    b'{"ids": ["a"], "rows": [1]}',
    b'{"ids": null, "rows": null}',
    b'{"id": ["a"]}',
    b'{"rows": [0], "more": 1}',
    b'{"rows": 1}',
    b'{"rows": "123"}',
    b'{"rows": [true]}',
    b'{"rows": [1.0]}',
    b'{"rows": [1.5]}',
    b'{"rows": ["1"]}',
    b'{"rows": [null]}',
    b'{"rows": [[1]]}',
    b'{"rows": [-1]}',
    b'{"rows": [NaN]}',
    b'{"rows": [Infinity]}',
    b'{"rows": [1e3]}',
    b'{"rows": [9223372036854775808]}',
    b'{"rows": [1' + b"0" * 5000 + b"]}",
    b'{"rows": [1',
    b'{"ids": [1]}',
    b'{"ids": ["\\ud800"]}',
    b'{"ids": "abc"}',
    b"[" * 100_000,
    b'{"rows": ' + b"[" * 100_000,
]


@pytest.mark.parametrize("body", NOT_RECORD_REQUESTS, ids=lambda body: repr(body[:40]))
def test_other_bodies_are_refused_in_one_short_sentence(body: bytes) -> None:
    with pytest.raises(RequestError, match="the body must be") as caught:
        parse_record_request(body, 100)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(RequestError, match=r"rows\.2 is True: Input should be a valid integer"):
        parse_record_request(b'{"rows": [1, 2, true, "x"]}', 100)


@PATIENT
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    with contextlib.suppress(RequestError):
        request = parse_record_request(body, 100)
        assert (request.ids is None) != (request.rows is None)


@pytest.mark.parametrize("body", [b'{"ids": ["a"], "ids": ["b"]}', b'{"\\u0069ds": [], "ids": [2, {}'])
def test_a_key_that_is_there_twice_is_named(body: bytes) -> None:
    with pytest.raises(RequestError, match=r"the body has the key 'ids' more than once"):
        parse_record_request(body, 10)


def test_ids_may_hold_colons() -> None:
    assert parse_record_request(b'{"ids": ["a:b:c", "{:}"]}', 10).ids == ["a:b:c", "{:}"]


@pytest.mark.parametrize("space", ["", " ", "\n\t", " " * 1000])
@pytest.mark.parametrize("ids", [[], ["a"], ["a", '"', "\\\\", '\\"]}', "]", "},", "é", "\n", "", "ids"]])
def test_space_and_odd_ids_mean_what_they_mean_in_json(ids: list[str], space: str) -> None:
    body = json.dumps({"ids": ids}, separators=(f"{space},{space}", f"{space}:{space}"))
    body = space + body.replace("[", f"[{space}", 1) + space
    assert parse_record_request(body.encode(), 20) == RecordRequest(ids=json.loads(body)["ids"])


def test_large_lists_are_read_whole() -> None:
    ids = [f"folder-{number}/{'x' * (number % 50)}" for number in range(20_000)]
    body = json.dumps({"ids": ids}).encode()
    assert is_large(body)
    assert parse_record_request(body, 20_000).ids == ids
    rows = list(range(0, 2**40, 2**25))
    assert parse_record_request(json.dumps({"rows": rows}).encode(), 2**15).rows == rows


def test_what_is_wrong_late_in_a_large_list_is_named() -> None:
    body = json.dumps({"rows": [*range(50_000), -1, *range(50_000)]}).encode()
    with pytest.raises(RequestError, match=r"rows\.50000 is -1: Input should be greater than"):
        parse_record_request(body, 200_000)


def test_a_comma_at_the_end_is_refused_wherever_it_stands() -> None:
    for count in (1, 2, 2**15 - 1, 2**15, 2**15 + 1, 2**16):
        for ends in (b"]}", b" ]}", b",]}", b", ]}"):
            with pytest.raises(RequestError, match="the body must be"):
                parse_record_request(b'{"rows": [' + b"1," * count + ends, 2**17)


@pytest.mark.parametrize("ends", [b"", b"]", b"]}", b", {"])
def test_too_many_items_are_refused_before_the_rest_is_read(ends: bytes) -> None:
    with pytest.raises(TooLargeError, match="at most 3"):
        parse_record_request(b'{"ids": ["a", "b", "c", "d"]}', 3)
    with pytest.raises(TooLargeError, match="at most 10"):
        parse_record_request(b'{"rows": [' + b"1," * 100_000 + b"1" + ends, 10)


@pytest.mark.parametrize("body", [b'{"id": [], nonsense', b'{"rows": [], "x": nonsense', b'{"\\u0061": '])
def test_one_unknown_key_ends_the_reading(body: bytes) -> None:
    with pytest.raises(RequestError, match="the body must be") as caught:
        parse_record_request(body + b"x" * 1_000_000, 10)
    assert len(str(caught.value)) < 300


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(RequestError, match="it has the key 'idz'"):
        parse_record_request(b'{"idz": [' + b'"a",' * 1_000_000, 10)
    with pytest.raises(RequestError, match="it has the key 'x'"):
        parse_record_request(b'{"ids": [], "x": 0' + b', "y": 0' * 1_000_000, 10)


@pytest.mark.parametrize("item", [b'"' + b"x" * 100_000 + b'"', b"1" * 100_000, b" " * 100_000])
def test_an_item_that_does_not_end_is_refused(item: bytes) -> None:
    with pytest.raises(RequestError, match="at most 65,536 bytes"):
        parse_record_request(b'{"rows": [' + item + b"]}", 10)


@PATIENT
@given(st.text('{}[]",:ids rows0123456789\\-.e\n', max_size=40))
def test_what_is_read_is_json(text: str) -> None:
    """Whatever passes means the same to another reader of JSON."""
    for body in (text, f'{{"ids": [{text}]}}', f'{{"rows": [{text}]}}', f'{{"rows": [1, {text}'):
        with contextlib.suppress(RequestError):
            request = parse_record_request(body.encode(), 100)
            found = {"ids": request.ids} if request.ids is not None else {"rows": request.rows}
            assert json.loads(body) == found
