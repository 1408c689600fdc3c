import asyncio
import base64
import time
from pathlib import Path

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from cache_builder.format import Cache
from logit_server.envelope import Envelope
from logit_server.errors import REQUEST_ID_KEY
from logit_server.run import serving
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from logit_server.state import State
from tests.logit_server.raw_client import ROWS_HEAD, answer, connect, served

PATHS = ["/v1/caches", "/v1/caches/synthetic", "/v1/caches/nope", "/nothing", "/healthz", "/openapi.json"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_an_id_of_its_own(path: str, client: httpx2.Client) -> None:
    ids = {client.get(path).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("path", [*PATHS, "/v1/caches/synthetic/records"])
def test_a_request_keeps_the_id_it_came_with(path: str, client: httpx2.Client) -> None:
    for ask in (client.get, client.post):
        assert ask(path, headers={"X-Request-Id": "run-7.step:8"}).headers["x-request-id"] == "run-7.step:8"


@pytest.mark.parametrize("odd", ["", "a b", "a" * 129, "<script>", "é".encode("latin-1")])
def test_an_id_that_could_do_harm_in_a_log_is_replaced(odd: str | bytes, client: httpx2.Client) -> None:
    given = odd if isinstance(odd, bytes) else odd.encode()
    response = client.get("/healthz", headers={b"X-Request-Id": given})
    assert response.headers["x-request-id"].encode() not in (b"", given)


@pytest.mark.parametrize("path", ["", "/ids", "/samples/nope", "/nothing", "/records", "/views/9/records"])
def test_every_answer_about_a_cache_names_it(path: str, client: httpx2.Client, cache: Cache) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        response = client.request(method, f"/v1/caches/synthetic{path}")
        assert response.headers["x-kdcache-id"] == cache.manifest.cache_id


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1", "/v1/", "/v1/caches/", "/v2/caches/synthetic"])
def test_other_paths_are_404_and_say_where_to_look(path: str, client: httpx2.Client) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "/openapi.json" in response.json()["detail"] or "no cache ''" in response.json()["detail"]
    assert "x-kdcache-id" not in response.headers


def test_no_other_site_is_let_in(client: httpx2.Client) -> None:
    response = client.get("/v1/caches", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in response.headers if name.startswith("access-control-")]


def wait_for(base: str, status: int) -> httpx2.Response:
    """Ask until an answer has this status."""
    deadline = time.monotonic() + 30
    while (response := httpx2.get(f"{base}/v1/caches")).status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return response


def test_a_full_server_says_when_to_return_and_stays_healthy(large_path: Path) -> None:
    with served(large_path, max_in_flight=1) as base:
        head = b"GET /v1/caches/synthetic/views/0/records HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with connect(base, head, receive_buffer=4096):
            refused = wait_for(base, 503)
            assert refused.json()["error"] == "OverloadedError"
            assert refused.headers["retry-after"] == "1"
            assert httpx2.get(f"{base}/healthz").status_code == 200
            ready = httpx2.get(f"{base}/readyz").json()
            assert [failed["check"] for failed in ready["failed"]] == ["limits"]
        wait_for(base, 200)


def test_a_request_whose_body_has_not_come_takes_nobodys_place(cache_path: Path) -> None:
    with served(cache_path, max_in_flight=1) as base:
        head = ROWS_HEAD + b"Content-Length: 4\r\n\r\n"
        with connect(base, head) as one, connect(base, head) as other:
            assert httpx2.get(f"{base}/v1/caches").status_code == 200
            for client in (one, other):
                client.sendall(bytes(4))
                assert answer(client)[0].status == 200


def answers(app: object, cache_path: Path, method: str = "GET") -> list[Message]:
    """What a server gets to send for one request to an application in an envelope."""
    settings = Settings(caches=(str(cache_path),))
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    envelope = Envelope(app, State(settings, open_catalog(settings)), {})  # type: ignore[arg-type]
    scope: Scope = {
        "type": "http", "method": method, "path": "/x", "headers": [], "server": None, "query_string": b"",
    }  # fmt: skip
    asyncio.run(envelope(scope, receive, send))
    return sent


async def _fails_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("a secret")


async def _fails_half_way(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError("a secret")


async def _fails_afterwards(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b"an answer"})
    raise ValueError("a secret")


def test_an_exception_nobody_foresaw_is_500_and_its_message_is_in_the_log_only(
    cache_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start, body = answers(_fails_at_once, cache_path)
    assert start["status"] == 500
    assert b"a secret" not in body["body"]
    request_id = dict(start["headers"])[b"x-request-id"].decode()
    assert request_id in caplog.text
    assert "a secret" in caplog.text


def test_half_an_answer_is_broken_off(cache_path: Path) -> None:
    with pytest.raises(ValueError, match="a secret"):
        answers(_fails_half_way, cache_path)


def test_a_whole_answer_stands(cache_path: Path) -> None:
    assert [message["type"] for message in answers(_fails_afterwards, cache_path)] == [
        "http.response.start",
        "http.response.body",
    ]


def test_an_unforeseen_exception_behind_all_frameworks_is_500(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a secret")

    monkeypatch.setattr("logit_server.routes.caches.summary", broken)
    for _ in range(2):  # the connection lives on
        response = client.get("/v1/caches")
        assert (response.status_code, response.json()["error"]) == (500, "InternalError")
        assert response.headers["x-request-id"]


def test_the_id_of_a_request_is_known_inside(cache_path: Path) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope[REQUEST_ID_KEY])
        await _fails_afterwards(scope, receive, send)

    start, _ = answers(app, cache_path)
    assert dict(start["headers"])[b"x-request-id"].decode() == seen[0]


def test_head_is_get_inside_and_head_outside(cache_path: Path) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["method"])
        await _fails_afterwards(scope, receive, send)

    answers(app, cache_path, "HEAD")
    assert seen == ["GET"]


def test_a_server_with_a_token_answers_nobody_without(cache_path: Path) -> None:
    paths = ["/v1/caches", "/v1/caches/synthetic", "/v1/caches/synthetic/ids", "/nothing", "/openapi.json"]
    wrong = [None, "Bearer wrong", "Bearer", "Basic c2VjcmV0", "secret", "Bearer secrets"]
    with serving(Settings.checked(caches=(str(cache_path),), port=0, token="secret")) as base:
        for path in paths:
            for given in wrong:
                response = httpx2.get(base + path, headers={"Authorization": given} if given else {})
                assert (response.status_code, response.json()["error"]) == (401, "UnauthorizedError")
                assert response.headers["www-authenticate"].startswith("Bearer, Basic ")
        rows = {"Content-Type": "application/vnd.kdcache.rows"}
        url = f"{base}/v1/caches/synthetic/records"
        assert httpx2.post(url, content=b"\0" * 4, headers=rows).status_code == 401
        browser = {"Authorization": "Basic " + base64.b64encode(b"anybody:secret").decode()}
        assert httpx2.get(f"{base}/v1/caches", headers=browser).status_code == 200
        rows["Authorization"] = "bearer secret"
        assert httpx2.post(url, content=b"\0" * 4, headers=rows).status_code == 200
        assert httpx2.get(f"{base}/healthz").status_code == httpx2.get(f"{base}/readyz").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/live.json",
        "/openapi.json",
        "/healthz",
        "/v1/caches",
        "/static/pages.css",
        "/caches/synthetic",
    ],
)
def test_every_path_refuses_queries_that_it_does_not_know(path: str, client: httpx2.Client) -> None:
    for query, said in (("no=1", "unknown query parameter"), ("id=1&id=2", "given 2 times")):
        response = client.get(f"{path}?{query}", headers={"Accept": "application/json"})
        assert (response.status_code, response.json()["error"]) == (422, "RequestError")
        assert said in response.json()["detail"]
