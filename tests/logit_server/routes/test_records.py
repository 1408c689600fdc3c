import json
import socket
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cache_builder.format import Cache, open_cache
from cache_builder.format.content_digest import content_digest
from cache_builder.format.wire import DIGEST_HEADER, JSON, PROBLEM, RECORDS, ROWS
from logit_server.page import PageFile
from logit_server.run import serving
from logit_server.settings import Settings
from tests.format.damage import changed, flipped
from tests.logit_server.odd_cache import ODD_IDS

PATH = "/v1/caches/synthetic/records"
RAW = {"Content-Type": ROWS}
SLOW_CLIENT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def pages(cache: Cache) -> list[NDArray[np.uint8]]:
    """Every view as the local reader reads it."""
    return [cache.read_page(view) for view in range(3)]


def raw(rows: list[int]) -> bytes:
    return np.array(rows, "<u4").tobytes()


@SLOW_CLIENT
@given(view=st.integers(0, 2), rows=st.lists(st.integers(0, 99), max_size=300))
def test_raw_rows_are_answered_with_a_gather_of_the_page(
    view: int, rows: list[int], client: httpx2.Client, cache: Cache, pages: list[NDArray[np.uint8]]
) -> None:
    response = client.post(PATH, params={"view": view}, content=raw(rows), headers=RAW)
    assert response.status_code == 200
    assert response.headers["content-type"] == RECORDS
    assert response.headers["x-kdcache-id"] == cache.manifest.cache_id
    assert response.content == pages[view][rows].tobytes()


def test_rows_and_ids_as_json_give_the_same_bytes(client: httpx2.Client, cache: Cache) -> None:
    rows = [99, 3, 3, 0]
    expected = cache.read_page(1)[rows].tobytes()
    by_rows = client.post(PATH, params={"view": 1}, json={"rows": rows})
    by_ids = client.post(PATH, params={"view": 1}, json={"ids": [cache.ids[row] for row in rows]})
    assert by_rows.content == by_ids.content == expected
    assert by_rows.headers["content-type"] == by_ids.headers["content-type"] == RECORDS


def test_odd_ids_are_found(client: httpx2.Client, odd_path: Path) -> None:
    response = client.post("/v1/caches/odd/records", json={"ids": ODD_IDS[::-1]})
    assert response.content == open_cache(odd_path).read_page(0)[::-1].tobytes()


def test_view_0_is_the_default(client: httpx2.Client, cache: Cache) -> None:
    assert client.post(PATH, content=raw([5]), headers=RAW).content == cache.read_page(0)[5].tobytes()


def test_a_cache_is_also_found_by_its_id(client: httpx2.Client, cache: Cache) -> None:
    path = f"/v1/caches/{cache.manifest.cache_id}/records"
    assert client.post(path, content=raw([5]), headers=RAW).content == cache.read_page(0)[5].tobytes()


@pytest.mark.parametrize("body", [{"ids": []}, {"rows": []}])
def test_nothing_asked_for_is_nothing_answered(body: dict[str, list[int]], client: httpx2.Client) -> None:
    response = client.post(PATH, json=body)
    assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "0")
    assert client.post(PATH, json=body, headers={"Accept": JSON}).json()["records"] == []


def test_decoded_json_is_what_the_local_reader_decodes(client: httpx2.Client, cache: Cache) -> None:
    rows = [7, 7, 42]
    response = client.post(PATH, params={"view": 2}, json={"rows": rows}, headers={"Accept": JSON})
    records = cache.read_page(2)[rows]
    dense = cache.decode(records)
    body = response.json()
    assert response.headers["content-type"] == JSON
    assert body["cache_id"] == cache.manifest.cache_id
    assert [record["row"] for record in body["records"]] == rows
    for record, logits in zip(body["records"], dense, strict=True):
        assert record["sample_id"] == cache.ids[record["row"]]
        for stored in record["top"]:
            assert stored["logit"] == pytest.approx(logits[stored["class_id"]], abs=1e-5)
    lse = cache.stored(records).lse
    assert [record["lse"] for record in body["records"]] == lse.tolist()


def refusal(response: httpx2.Response, status: int, error: str) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "error", "request_id"}
    assert (body["error"], body["status"]) == (error, status)
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == PROBLEM
    return str(body["detail"])


def test_an_unknown_cache_is_404(client: httpx2.Client) -> None:
    response = client.post("/v1/caches/nope/records", content=raw([0]), headers=RAW)
    assert "'nope'" in refusal(response, 404, "UnknownCacheError")
    assert "x-kdcache-id" not in response.headers


def test_unknown_ids_are_404_and_the_first_few_are_named(client: httpx2.Client, cache: Cache) -> None:
    response = client.post(PATH, json={"ids": [cache.ids[0], *(f"no-{i}" for i in range(9))]})
    detail = refusal(response, 404, "UnknownSampleError")
    assert "'no-0', 'no-1'" in detail
    assert "no-8" not in detail
    assert response.headers["x-kdcache-id"] == cache.manifest.cache_id


@pytest.mark.parametrize("view", ["3", "-1", "x", "1.5", "", "99999999999999999999"])
def test_a_view_out_of_range_is_422(view: str, client: httpx2.Client) -> None:
    response = client.post(f"{PATH}?view={view}", content=raw([0]), headers=RAW)
    assert "view" in refusal(response, 422, "RequestError")


@pytest.mark.parametrize("content", [raw([0, 100]), raw([2**32 - 1]), raw([2**31])])
def test_raw_rows_out_of_range_are_422(content: bytes, client: httpx2.Client) -> None:
    response = client.post(PATH, content=content, headers=RAW)
    assert "1 row(s) are out of range" in refusal(response, 422, "RequestError")


@pytest.mark.parametrize("row", [100, 2**31, 2**40, 2**62])
def test_json_rows_out_of_range_are_422(row: int, client: httpx2.Client) -> None:
    detail = refusal(client.post(PATH, json={"rows": [0, row]}), 422, "RequestError")
    assert f"{row}; cache 'synthetic' has rows 0 to 99" in detail


@pytest.mark.parametrize("row", [-1, True, 1.0, "1", None, 2**63, 10**30])
def test_json_rows_that_are_no_rows_are_422(row: object, client: httpx2.Client) -> None:
    assert "rows.1" in refusal(client.post(PATH, json={"rows": [0, row]}), 422, "RequestError")


def test_ids_and_rows_together_are_422(client: httpx2.Client) -> None:
    response = client.post(PATH, json={"rows": [0], "ids": ["x"]})
    assert 'either "ids" or "rows"' in refusal(response, 422, "RequestError")


@pytest.mark.parametrize("length", [1, 5])
def test_half_a_row_is_422(length: int, client: httpx2.Client) -> None:
    assert "multiple of 4" in refusal(
        client.post(PATH, content=bytes(length), headers=RAW), 422, "RequestError"
    )


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({}, "Content-Type is missing"),
        ({"Content-Type": "text/plain"}, "Content-Type is 'text/plain'"),
        ({**RAW, "Content-Encoding": "gzip"}, "Content-Encoding is 'gzip'"),
    ],
)
def test_a_body_of_another_type_is_415(headers: dict[str, str], named: str, client: httpx2.Client) -> None:
    response = client.post(PATH, content=raw([0]), headers=headers)
    assert named in refusal(response, 415, "MediaTypeError")


def test_an_answer_of_another_type_is_406(client: httpx2.Client) -> None:
    response = client.post(PATH, content=raw([0]), headers={**RAW, "Accept": "text/html"})
    assert RECORDS in refusal(response, 406, "NotAcceptableError")


def test_another_method_is_405(client: httpx2.Client) -> None:
    response = client.get(PATH)
    refusal(response, 405, "MethodNotAllowed")
    assert response.headers["allow"] == "POST, OPTIONS"


@SLOW_CLIENT
@given(body=st.binary(max_size=60), content_type=st.sampled_from([ROWS, JSON]))
def test_any_body_is_answered_or_refused(body: bytes, content_type: str, client: httpx2.Client) -> None:
    response = client.post(PATH, content=body, headers={"Content-Type": content_type})
    assert response.status_code in (200, 404, 422)
    if response.status_code != 200:
        assert response.json()["status"] == response.status_code


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["ids", "rows", "x"]), inner),
    max_leaves=8,
)


@SLOW_CLIENT
@given(value=JSON_VALUES)
def test_any_json_is_answered_or_refused(value: object, client: httpx2.Client) -> None:
    response = client.post(PATH, content=json.dumps(value).encode(), headers={"Content-Type": JSON})
    assert response.status_code in (200, 404, 422)


@pytest.fixture(scope="module")
def small(cache_path: Path) -> Iterator[httpx2.Client]:
    """A server with small limits."""
    limits = {"max_ids": 10, "max_json_records": 4, "max_body_bytes": 200}
    with (
        serving(Settings.checked(caches=(str(cache_path),), port=0, **limits)) as base,
        httpx2.Client(base_url=base) as opened,
    ):
        yield opened


def test_too_many_records_are_413(small: httpx2.Client) -> None:
    assert small.post(PATH, content=raw([0] * 10), headers=RAW).status_code == 200
    refusal(small.post(PATH, content=raw([0] * 11), headers=RAW), 413, "TooLargeError")
    refusal(small.post(PATH, json={"rows": [0] * 11}), 413, "TooLargeError")
    as_json = {"Accept": JSON}
    assert small.post(PATH, json={"rows": [0] * 4}, headers=as_json).status_code == 200
    refusal(small.post(PATH, json={"rows": [0] * 5}, headers=as_json), 413, "TooLargeError")


def test_a_client_whose_body_was_too_large_is_answered_again(small: httpx2.Client) -> None:
    for _ in range(2):
        refusal(small.post(PATH, content=bytes(10_000_000), headers=RAW), 413, "TooLargeError")
    assert small.post(PATH, content=raw([0]), headers=RAW).status_code == 200


def test_a_body_of_unknown_length_is_refused_before_its_end(small: httpx2.Client) -> None:
    """Of a body that never ends, the first bytes beyond the limit are answered."""
    split = urllib.parse.urlsplit(str(small.base_url))
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {ROWS}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((split.hostname or "", split.port or 0), timeout=30) as connection:
        connection.sendall(head.encode() + b"100\r\n" + bytes(256) + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_damage_is_500_with_the_tile_and_a_repaired_file_is_200(own_cache: Path, cache: Cache) -> None:
    shard = own_cache / "records/logits/lse_above/c" / "0" / "3"
    with serving(Settings(caches=(str(own_cache),), port=0)) as base, httpx2.Client(base_url=base) as client:
        with changed(shard, flipped(shard.read_bytes(), 333)):
            for _ in range(2):
                response = client.post(PATH, content=raw([0, 99]), headers=RAW)
                assert "views 0-1, rows 96-99" in refusal(response, 500, "CorruptCacheError")
                assert response.headers["x-kdcache-id"] == cache.manifest.cache_id
            for other in (
                f"/v1/caches/synthetic/samples/{cache.ids[99]}",
                "/v1/caches/synthetic/views/0/records",
            ):
                refusal(client.get(other), 500, "CorruptCacheError")
            # Other rows are in other shards, and so is the other view group.
            assert client.post(PATH, content=raw([0]), headers=RAW).status_code == 200
            assert client.post(f"{PATH}?view=2", content=raw([99]), headers=RAW).status_code == 200
        response = client.post(PATH, content=raw([99]), headers=RAW)
        assert (response.status_code, response.content) == (200, cache.read_page(0)[99].tobytes())


def test_a_disk_that_does_not_answer_is_503_and_says_when_to_return(own_cache: Path) -> None:
    shard = own_cache / "records/logits/lse_above/c" / "0" / "3"
    before = shard.read_bytes()
    with serving(Settings(caches=(str(own_cache),), port=0)) as base, httpx2.Client(base_url=base) as client:
        shard.unlink()
        shard.symlink_to(shard)
        response = client.post(PATH, content=raw([99]), headers=RAW)
        assert "views 0-1, rows 96-99" in refusal(response, 503, "StorageError")
        assert response.headers["retry-after"] == "1"
        shard.unlink()
        shard.write_bytes(before)
        assert client.post(PATH, content=raw([99]), headers=RAW).status_code == 200


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_view_larger_than_the_budget_is_served(
    blocks: int, cache_path: Path, cache: Cache, tmp_path: Path
) -> None:
    limits = {"page_bytes": blocks * 32 * cache.record_bytes, "page_dir": tmp_path}
    rows = np.random.default_rng(0).permutation(100)
    with (
        serving(Settings.checked(caches=(str(cache_path),), port=0, **limits)) as base,
        httpx2.Client(base_url=base) as client,
    ):
        for view in (0, 1, 2, 0, 1, 2):
            page = cache.read_page(view)
            response = client.post(f"{PATH}?view={view}", content=raw(rows.tolist()), headers=RAW)
            assert response.content == page[rows].tobytes()
            response = client.get(f"/v1/caches/synthetic/views/{view}/records?start=5&stop=90")
            assert response.content == page[5:90].tobytes()
            assert response.headers[DIGEST_HEADER] == content_digest(page[5:90].tobytes())
            kept = [file.nbytes(block) for file in map(PageFile, tmp_path.rglob("*.page"))
                    for block in file.resident()]  # fmt: skip
            assert sum(kept) <= limits["page_bytes"]


def test_many_clients_at_once(client: httpx2.Client, pages: list[NDArray[np.uint8]]) -> None:
    def ask(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        view, rows = int(rng.integers(3)), rng.integers(0, 100, 50)
        response = client.post(f"{PATH}?view={view}", content=raw(rows.tolist()), headers=RAW)
        return response.content == pages[view][rows].tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))


VIEW = "/v1/caches/synthetic/views/1/records"


@pytest.mark.parametrize(
    ("query", "start", "stop"),
    [
        ("", 0, 100),
        ("?start=98", 98, 100),
        ("?stop=3", 0, 3),
        ("?start=5&stop=5", 5, 5),
        ("?start=100", 100, 100),
    ],
)
def test_a_range_is_streamed(query: str, start: int, stop: int, client: httpx2.Client, cache: Cache) -> None:
    response = client.get(VIEW + query)
    assert response.status_code == 200
    assert response.headers["content-type"] == RECORDS
    assert response.content == cache.read_page(1)[start:stop].tobytes()
    assert int(response.headers["content-length"]) == len(response.content)


@pytest.mark.parametrize(
    "query",
    [
        "?start=-1",
        "?stop=101",
        "?start=5&stop=4",
        "?start=x",
        "?stop=1.5",
        "?start=101",
        "?stop=-1",
        "?from=3",
    ],
)
def test_what_is_no_range_is_422(query: str, client: httpx2.Client) -> None:
    key = query[1:].partition("=")[0]
    assert key in refusal(client.get(VIEW + query), 422, "RequestError")


@pytest.mark.parametrize("view", ["3", "-1", "x"])
def test_a_range_of_a_view_out_of_range_is_422(view: str, client: httpx2.Client) -> None:
    response = client.get(f"/v1/caches/synthetic/views/{view}/records")
    assert "view" in refusal(response, 422, "RequestError")


def test_a_range_larger_than_a_chunk_is_whole(
    client: httpx2.Client, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logit_server.routes.records._CHUNK_BYTES", 3 * cache.record_bytes + 1)
    with client.stream("GET", VIEW) as response:
        assert b"".join(response.iter_raw()) == cache.read_page(1).tobytes()


def test_a_range_has_an_entity_tag_and_is_sent_once(client: httpx2.Client, cache: Cache) -> None:
    first = client.get(VIEW, params={"stop": 7})
    tag = first.headers["etag"]
    assert tag == f'"{cache.manifest.cache_id}-1-0-7"'
    again = client.get(VIEW, params={"stop": 7}, headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(VIEW, params={"stop": 8}, headers={"If-None-Match": tag}).status_code == 200


def test_only_an_address_with_the_cache_id_is_immutable(client: httpx2.Client, cache: Cache) -> None:
    by_id = VIEW.replace("synthetic", str(cache.manifest.cache_id))
    assert "immutable" in client.get(by_id).headers["cache-control"]
    assert client.get(VIEW).headers["cache-control"] == "no-cache"


def test_head_has_the_headers_and_no_body(client: httpx2.Client, cache: Cache) -> None:
    response = client.head(VIEW)
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == 100 * cache.record_bytes
    assert response.headers["x-kdcache-id"] == cache.manifest.cache_id


def test_a_range_as_json_is_406(client: httpx2.Client) -> None:
    response = client.get(VIEW, headers={"Accept": JSON})
    assert f"this path answers with {RECORDS}" in refusal(response, 406, "NotAcceptableError")
