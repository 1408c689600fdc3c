"""HEAD says what GET would, and 304 answers who has it already, on every path that is read."""

import httpx2
import pytest

from cache_builder.format.wire import ARROW, DIGEST_HEADER, NDJSON

CACHE = "/v1/caches/synthetic"
STREAMS = f"{CACHE}/views/0/records"
READ = {
    "/v1/caches": "",
    "/openapi.json": "",
    "/docs": "",
    "/problems": "",
    "/static/kdcache.js": "",
    CACHE: "",
    f"{CACHE}/ids": "",
    f"{CACHE}/arrays/samples/label": "",
    f"{CACHE}/zarr/zarr.json": "",
    f"{CACHE}/zarr/samples/label/zarr.json": "",
    f"{CACHE}/samples?id=sample-7": "",
    f"{CACHE}/samples/sample-7": "",
    STREAMS: "",
    f"{STREAMS}?start=3&stop=9": ARROW,
    f"{STREAMS}?start=3&stop=8": NDJSON,
}
VOLATILE = {"date", "x-request-id", "transfer-encoding"}


def about(response: httpx2.Response) -> dict[str, str]:
    return {key: value for key, value in response.headers.items() if key not in VOLATILE}


@pytest.fixture(scope="module")
def paths(client: httpx2.Client) -> dict[str, str]:
    first = client.get(f"{CACHE}/ids").text.splitlines()[7]
    name = httpx2.Response(200, content=first).json()["id"]
    return {path.replace("sample-7", name): accept for path, accept in READ.items()}


@pytest.mark.parametrize("number", range(len(READ)), ids=list(READ))
@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
def test_head_has_the_headers_of_get(
    number: int, coding: str, paths: dict[str, str], client: httpx2.Client
) -> None:
    path, accept = list(paths.items())[number]
    headers = {"Accept": accept or "*/*", "Accept-Encoding": coding}
    get, head = client.get(path, headers=headers), client.head(path, headers=headers)
    assert (get.status_code, head.status_code, head.content) == (200, 200, b"")
    expected = about(get)
    if path == STREAMS:
        expected.pop(DIGEST_HEADER.lower())  # it would take as long as the bytes
    assert about(head) == expected


@pytest.mark.parametrize("number", range(len(READ)), ids=list(READ))
def test_who_has_an_answer_already_is_told_so(
    number: int, paths: dict[str, str], client: httpx2.Client
) -> None:
    path, accept = list(paths.items())[number]
    headers = {"Accept": accept or "*/*"}
    whole = client.get(path, headers=headers)
    tag = whole.headers["etag"]
    bare = tag.removeprefix("W/")
    known = [tag, bare, f"W/{bare}", f'"other", {bare}', f'"a" ,W/{bare},"b"']
    known += [] if path.startswith("/static") else ["*"]
    for value in known:
        for ask in (client.get, client.head):
            again = ask(path, headers=headers | {"If-None-Match": value})
            assert (again.status_code, again.content) == (304, b""), value
            assert again.headers["etag"].removeprefix("W/") == bare
            assert again.headers.get("cache-control") == whole.headers.get("cache-control")
    for value in ('"other"', "nonsense", bare[:-1], bare.strip('"')):
        assert client.get(path, headers=headers | {"If-None-Match": value}).status_code == 200


def test_head_has_no_ranges(client: httpx2.Client) -> None:
    for path in (STREAMS, f"{CACHE}/arrays/samples/label", f"{CACHE}/zarr/samples/label/zarr.json"):
        for given in ("bytes=0-3", "bytes=99999999-"):
            head = client.head(path, headers={"Range": given})
            assert head.status_code == 200
            assert "content-range" not in head.headers


def test_what_goes_by_accept_says_so_to_caches_between(client: httpx2.Client) -> None:
    assert "Accept" in client.get(STREAMS).headers["vary"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/live.json"])
def test_what_is_of_this_moment_has_no_tag(path: str, client: httpx2.Client) -> None:
    response = client.get(path, headers={"If-None-Match": "*"})
    assert response.status_code == 200
    assert "etag" not in response.headers


def test_errors_have_no_tag_and_are_never_not_modified(client: httpx2.Client) -> None:
    response = client.get("/v1/caches/nope", headers={"If-None-Match": "*"})
    assert response.status_code == 404
    assert "etag" not in response.headers
