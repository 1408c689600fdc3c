"""Records as data frames and lines, and downloads that go on."""

from __future__ import annotations

import io
import json
import sys

import httpx2
import numpy as np
import pyarrow as pa
import pytest

from cache_builder.format import Cache
from cache_builder.format.content_digest import content_digest, matches
from cache_builder.format.wire import ARROW, DIGEST_HEADER, JSON, NDJSON, ROWS
from logit_server import formats
from tests.logit_server.routes.test_records import refusal

RECORDS = "/v1/caches/synthetic/records?view=2"
VIEW = "/v1/caches/synthetic/views/2/records"
ASKED = np.array([7, 0, 99, 7], "<u4")


def table_of(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(io.BytesIO(content)).read_all()


def post(client: httpx2.Client, accept: str) -> httpx2.Response:
    headers = {"Content-Type": ROWS, "Accept": accept}
    # The first data frame imports pandas.
    response = client.post(RECORDS, content=ASKED.tobytes(), headers=headers, timeout=120)
    assert response.status_code == 200
    assert response.headers["content-type"] == accept
    return response


def test_chosen_rows_as_a_data_frame(client: httpx2.Client, cache: Cache) -> None:
    response = post(client, ARROW)
    assert matches(response.content, response.headers[DIGEST_HEADER])
    frame = table_of(response.content).to_pandas()
    stored = cache.stored(cache.read_page(2)[ASKED])
    assert frame.sample_id.tolist() == [cache.ids[row] for row in ASKED]
    assert frame.view.tolist() == [2] * 4
    assert frame.label.tolist() == cache.labels[ASKED].tolist()
    np.testing.assert_array_equal(np.stack(frame.top_ids), stored.classes)
    np.testing.assert_array_equal(np.stack(frame.top_logits), stored.values)
    np.testing.assert_array_equal(frame.lse, stored.lse)


def test_a_data_frame_says_where_it_is_from(client: httpx2.Client, cache: Cache) -> None:
    metadata = table_of(post(client, ARROW).content).schema.metadata
    assert metadata[b"kdcache.cache_id"].decode() == cache.manifest.cache_id


def test_lines_are_the_records_of_the_json(client: httpx2.Client) -> None:
    lines = post(client, NDJSON).content.decode().splitlines()
    assert [json.loads(line) for line in lines] == post(client, JSON).json()["records"]


@pytest.mark.parametrize("at_once", [7, 2048])
def test_a_whole_view_as_a_data_frame(
    client: httpx2.Client, cache: Cache, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(formats, "_AT_ONCE", at_once)
    table = table_of(client.get(VIEW + "?start=5", headers={"Accept": ARROW}).content)
    assert table["sample_id"].to_pylist() == list(cache.ids[5:100])
    stored = cache.stored(cache.read_page(2)[5:])
    assert table["top_ids"].to_pylist() == stored.classes.tolist()


def test_a_whole_view_as_lines(client: httpx2.Client) -> None:
    lines = client.get(VIEW, headers={"Accept": NDJSON}).content.decode().splitlines()
    assert [json.loads(line)["row"] for line in lines] == list(range(100))


def test_a_sample_that_could_not_be_read_is_null(client: httpx2.Client) -> None:
    table = table_of(client.get("/v1/caches/odd/views/0/records", headers={"Accept": ARROW}).content)
    missing = [row["lse"] is None for row in table.to_pylist()]
    assert any(missing)
    assert not all(missing)


def test_forms_have_tags_of_their_own(client: httpx2.Client) -> None:
    tags = {
        client.head(VIEW, headers={"Accept": accept}).headers["etag"] for accept in ("*/*", ARROW, NDJSON)
    }
    assert len(tags) == 3


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=1000-", 1000, None), ("bytes=-7", -7, None), ("bytes=555-1555", 555, 1555),
     ("bytes=10-999999999", 10, None)],
)  # fmt: skip
def test_some_bytes_of_a_view(
    client: httpx2.Client, cache: Cache, asked: str, first: int, last: int | None
) -> None:
    whole = cache.read_page(2)[10:90].tobytes()
    response = client.get(VIEW + "?start=10&stop=90", headers={"Range": asked})
    expected = whole[first:] if last is None else whole[first : last + 1]
    assert (response.status_code, response.content) == (206, expected)
    start = first % len(whole)
    assert response.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(whole)}"
    assert response.headers[DIGEST_HEADER] == content_digest(expected)


def test_a_download_goes_on_after_a_break(client: httpx2.Client, cache: Cache) -> None:
    first = client.get(VIEW, headers={"Range": "bytes=0-1999"})
    rest = client.get(VIEW, headers={"Range": "bytes=2000-", "If-Range": first.headers["etag"]})
    assert first.content + rest.content == cache.read_page(2).tobytes()


@pytest.mark.parametrize(
    "headers",
    [{"Range": "bytes=0-9", "If-Range": '"another"'}, {"Range": "bytes=0-9,20-29"}, {"Range": "rows=0-9"},
     {"Range": "bytes=9-0"}, {"Range": "bytes=-"}],
)  # fmt: skip
def test_what_is_no_range_of_this_body_gives_all_of_it(
    client: httpx2.Client, cache: Cache, headers: dict[str, str]
) -> None:
    response = client.get(VIEW, headers=headers)
    assert (response.status_code, response.content) == (200, cache.read_page(2).tobytes())
    assert response.headers["accept-ranges"] == "bytes"


def test_some_bytes_of_an_array(client: httpx2.Client) -> None:
    path = "/v1/caches/synthetic/arrays/codec/logits/basis"
    whole = client.get(path, headers={"Accept-Encoding": "identity"})
    part = client.get(path, headers={"Range": "bytes=7-99", "If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole.content[7:100])
    assert part.headers["content-range"] == f"bytes 7-99/{len(whole.content)}"
    assert part.headers[DIGEST_HEADER] == content_digest(part.content)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_416(client: httpx2.Client, cache: Cache, asked: str) -> None:
    response = client.get(VIEW, headers={"Range": asked})
    refusal(response, 416, "RangeError")
    assert response.headers["content-range"] == f"bytes */{cache.read_page(2).nbytes}"


@pytest.fixture
def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "cache_builder.format.frames", raising=False)
    monkeypatch.delattr("cache_builder.format.frames", raising=False)


@pytest.mark.usefixtures("without_pyarrow")
def test_without_pyarrow_it_is_said_what_to_install(client: httpx2.Client) -> None:
    response = client.get(VIEW, headers={"Accept": ARROW})
    assert "pip install 'kdcache[parquet]'" in refusal(response, 406, "NotAcceptableError")
