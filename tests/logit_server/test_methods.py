"""``Allow`` names exactly the methods that are not answered with 405."""

import httpx2
import pytest

from tests.logit_server.raw_client import answer, connect

CACHE = "/v1/caches/synthetic"
READ = "GET, HEAD, OPTIONS"
PATHS = {
    "/": READ,
    "/docs": READ,
    "/problems": READ,
    "/healthz": READ,
    "/readyz": READ,
    "/openapi.json": READ,
    "/static/kdcache.js": READ,
    "/v1/caches": READ,
    CACHE: READ,
    "/v1/caches/nope": READ,
    f"{CACHE}/ids": READ,
    f"{CACHE}/arrays/samples/label": READ,
    f"{CACHE}/zarr/zarr.json": READ,
    f"{CACHE}/samples/a": READ,
    f"{CACHE}/samples": READ,
    f"{CACHE}/views/0/records": READ,
    f"{CACHE}/records": "POST, OPTIONS",
}


@pytest.mark.parametrize("path", PATHS)
def test_allow_is_true(path: str, client: httpx2.Client) -> None:
    options = client.options(path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, PATHS[path], b"")
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
        response = client.request(method, path)
        assert (response.status_code == 405) == (method not in PATHS[path])
        if response.status_code == 405:
            assert response.headers["allow"] == PATHS[path]


def test_where_nothing_is_nothing_is_allowed(client: httpx2.Client) -> None:
    response = client.options("/nothing")
    assert response.status_code == 404
    assert "allow" not in response.headers


def test_the_server_as_a_whole_may_be_asked(url: str) -> None:
    with connect(url, b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        response, _ = answer(client)
        assert (response.status, response.headers["allow"]) == (204, "GET, HEAD, POST, OPTIONS")
