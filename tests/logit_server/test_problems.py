"""Every error is a problem of RFC 9457, whoever finds it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.exceptions import HTTPException

from cache_builder.format import KDCacheError, UnknownSampleError, errors
from cache_builder.format.wire import JSON, PROBLEM, ROWS
from logit_server import errors as server_errors
from logit_server.errors import status_of
from logit_server.problems import meanings, problem_response
from tests.logit_server.raw_client import served

RECORDS_OF = "/v1/caches/synthetic/records"


def every_error() -> list[type[Exception]]:
    found = {**vars(errors), **vars(server_errors)}.values()
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, KDCacheError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_is_a_problem(kind: type[Exception]) -> None:
    made = {UnknownSampleError: (["a"], 1), server_errors.OverloadedError: ("why", "bodies")}
    error = kind(*made.get(kind, ("why",)))
    body = json.loads(bytes(problem_response(error, "id-1").body))
    shown = body.pop("type").partition("#")[2]
    assert shown in {meaning.name for meaning in meanings()}
    title = body.pop("title")
    assert title
    assert not title.endswith(".")
    assert body == {
        "status": status_of(error), "detail": str(error), "error": kind.__name__, "request_id": "id-1",
    }  # fmt: skip
    assert 400 <= body["status"] < 600


def test_what_nobody_foresaw_keeps_its_message_to_itself() -> None:
    response = problem_response(RuntimeError("the password is hunter2"), "x")
    assert response.status_code == 500
    assert b"hunter2" not in bytes(response.body)


def test_errors_are_never_stored_and_overload_says_when_to_return() -> None:
    response = problem_response(server_errors.OverloadedError("full", "in_flight"), "x")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.headers["cache-control"] == "no-store"


def test_what_http_defines_has_no_type_of_ours() -> None:
    response = problem_response(HTTPException(405, headers={"Allow": "GET"}), "x")
    body = json.loads(bytes(response.body))
    assert (body["type"], body["title"], body["error"]) == (
        "about:blank", "Method Not Allowed", "MethodNotAllowed",
    )  # fmt: skip
    assert response.headers["allow"] == "GET"


def test_bytes_that_are_not_utf_8_are_answered() -> None:
    body = bytes(problem_response(KDCacheError("file \udcff"), "x").body)
    assert json.loads(body)["detail"] == "file \udcff"


@pytest.fixture(scope="module")
def base(cache_path: Path) -> Iterator[str]:
    with served(cache_path, max_ids=50, max_body_bytes=4000, max_in_flight=64) as url:
        yield url


ASKED = [
    ("GET", "/nothing", {}, None, 404),
    ("GET", "/v1/caches/nope", {}, None, 404),
    ("GET", "/static/nothing.js", {}, None, 404),
    ("GET", RECORDS_OF, {}, None, 405),
    ("PUT", "/v1/caches", {}, None, 405),
    ("TRACE", "/healthz", {}, None, 405),
    ("DELETE", "/static/kdcache.js", {}, None, 405),
    ("GET", "/v1/caches/synthetic/ids", {"Accept": "image/png"}, None, 406),
    ("POST", RECORDS_OF, {"Content-Type": ROWS}, bytes(4 * 51), 413),
    ("POST", RECORDS_OF, {"Content-Type": JSON}, b" " * 4001, 413),
    ("POST", RECORDS_OF, {"Content-Type": "text/plain"}, b"x", 415),
    ("GET", "/v1/caches/synthetic/views/0/records", {"Range": "bytes=9999999-"}, None, 416),
    ("GET", "/v1/caches", {"Host": "elsewhere.example"}, None, 421),
    ("POST", RECORDS_OF, {"Content-Type": JSON}, b"{", 422),
    ("GET", "/v1/caches/synthetic/views/x/records", {}, None, 422),
    ("GET", "/v1/caches/synthetic/samples", {}, None, 422),
    ("GET", "/v1/caches?a=1", {}, None, 422),
    ("GET", "/v1/caches?a=1&a=2", {}, None, 422),
]


@pytest.mark.parametrize(("method", "path", "headers", "body", "status"), ASKED)
def test_every_refusal_is_a_problem_with_the_id_of_its_request(
    method: str, path: str, headers: dict[str, str], body: bytes | None, status: int, base: str
) -> None:
    response = httpx2.request(method, base + path, headers=headers, content=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    said = response.json()
    assert said["status"] == status
    assert said["request_id"] == response.headers["x-request-id"]
    assert "x-request-id" not in response.headers["x-request-id"]
    assert response.headers.get_list("x-request-id") == [said["request_id"]]
    assert {"type", "title", "detail", "error"} < set(said)


def test_the_page_of_problems_has_a_place_for_every_type(client: httpx2.Client) -> None:
    response = client.get("/v1/caches/nope")
    path, _, place = response.json()["type"].partition("#")
    page = client.get(path)
    assert page.status_code == 200
    assert re.search(rf'id="{place}"', page.text)
    assert len(set(re.findall(r'tr id="(\w+)"', page.text))) == len(meanings())
