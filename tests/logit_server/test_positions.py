"""Caches whose samples have several positions, behind a real server: the store's bytes, row by row."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from cache_builder.format import open_cache
from cache_builder.format.content_digest import content_digest
from cache_builder.format.wire import COUNT_TYPE, COUNTED, JSON, RECORDS, ROWS, WIDE_ROWS
from logit_server.run import serving
from logit_server.settings import Settings
from tests.format.position_caches import COUNTS_OF_ROWS, RAGGED, write_positions
from tests.format.test_golden import GOLDEN

COUNTS = {"grid": (6,) * 5, "ragged": COUNTS_OF_ROWS}
TYPES = {"grid": RECORDS, "ragged": COUNTED}
# Two rows are a block: within one, across all of them, backwards, twice, none.
ASKED = ([0], [1], [1, 1], [2, 3], [0, 1, 2, 3, 4], [4, 2, 0, 3, 1, 0, 4], [])


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    """A server of both goldens that answers with at most 20 records at once, and 12 as JSON."""
    caches = tuple(str(GOLDEN / f"v3/{kind}.zarr") for kind in COUNTS)
    settings = Settings(caches=caches, port=0, max_ids=20, max_json_records=12)
    with serving(settings) as base, httpx2.Client(base_url=f"{base}/v1/caches") as opened:
        yield opened


def stored(kind: str, view: int) -> list[bytes]:
    """The bytes of each row's records, by plain Zarr and NumPy."""
    group = zarr.open_group(GOLDEN / f"v3/{kind}.zarr", mode="r")
    layout = open_cache(GOLDEN / f"v3/{kind}.zarr").layout
    fields = [np.asarray(group[f"records/logits/{field.name}"])[view] for field in layout.fields]
    if kind == "grid":
        starts = [6 * row for row in range(5)]
    else:
        starts = np.asarray(group["samples/position_start"]).tolist()
    return [
        b"".join(field[start + i].tobytes() for i in range(count) for field in fields)
        for start, count in zip(starts, COUNTS[kind], strict=True)
    ]


def split(kind: str, response: httpx2.Response, rows: int) -> tuple[list[int], bytes]:
    """The counts that an answer has, or those of the manifest; its records."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == TYPES[kind]
    assert response.headers["content-digest"] == content_digest(response.content)
    if kind == "grid":
        return [6] * rows, response.content
    size = rows * COUNT_TYPE.itemsize
    return np.frombuffer(response.content[:size], COUNT_TYPE).tolist(), response.content[size:]


def post(http: httpx2.Client, kind: str, rows: list[int], view: int = 0) -> httpx2.Response:
    content = np.array(rows, "<u4").tobytes()
    return http.post(
        f"/{kind}/records", params={"view": view}, content=content, headers={"Content-Type": ROWS}
    )


@pytest.mark.parametrize("rows", ASKED, ids=str)
@pytest.mark.parametrize("kind", COUNTS)
def test_rows_are_the_bytes_of_the_store(kind: str, rows: list[int], http: httpx2.Client) -> None:
    if sum(COUNTS[kind][row] for row in rows) > 20:
        rows = rows[:3]
    for view in range(3):
        by_row = stored(kind, view)
        counts, records = split(kind, post(http, kind, rows, view), len(rows))
        assert counts == [COUNTS[kind][row] for row in rows]
        assert records == b"".join(by_row[row] for row in rows)


@pytest.mark.parametrize("kind", COUNTS)
def test_ranges_are_the_bytes_of_the_store(kind: str, http: httpx2.Client) -> None:
    by_row = stored(kind, 2)
    for start in range(6):
        for stop in range(start, 6):
            response = http.get(f"/{kind}/views/2/records", params={"start": start, "stop": stop})
            counts, records = split(kind, response, stop - start)
            assert counts == list(COUNTS[kind][start:stop])
            assert records == b"".join(by_row[start:stop])
            head = http.head(f"/{kind}/views/2/records", params={"start": start, "stop": stop})
            assert head.headers["content-length"] == str(len(response.content))
            assert head.headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize("kind", COUNTS)
def test_ids_and_wide_rows_give_the_same(kind: str, http: httpx2.Client) -> None:
    expected = post(http, kind, [3, 0]).content
    assert http.post(f"/{kind}/records", json={"ids": ["3.txt", "0.txt"]}).content == expected
    assert http.post(f"/{kind}/records", json={"rows": [3, 0]}).content == expected
    wide, headers = np.array([3, 0], "<u8").tobytes(), {"Content-Type": WIDE_ROWS}
    assert http.post(f"/{kind}/records", content=wide, headers=headers).content == expected


@pytest.mark.parametrize("kind", COUNTS)
def test_json_has_the_same_records_flat_with_their_counts(kind: str, http: httpx2.Client) -> None:
    rows, cache = [3, 1], open_cache(GOLDEN / f"v3/{kind}.zarr")
    body = http.post(f"/{kind}/records?view=1", json={"rows": rows}, headers={"Accept": JSON}).json()
    counts = [COUNTS[kind][row] for row in rows]
    assert body["counts"] == counts
    assert [record["row"] for record in body["records"]] == np.repeat(rows, counts).tolist()
    lse = cache.stored(cache.gather(1, rows)).lse
    assert [record["lse"] for record in body["records"]] == lse.tolist()


@pytest.mark.parametrize("kind", COUNTS)
def test_a_sample_is_shown_at_all_its_positions(kind: str, http: httpx2.Client) -> None:
    for row, count in enumerate(COUNTS[kind]):
        body = http.get(f"/{kind}/samples/{row}.txt", params={"top": 2}).json()
        assert body["counts"] == [count]
        assert [(record["row"], len(record["top"])) for record in body["records"]] == [(row, 2)] * count


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("row", [5, 30, 2**32 - 1])
def test_rows_out_of_range_are_422(kind: str, row: int, http: httpx2.Client) -> None:
    response = post(http, kind, [0, row])
    assert response.status_code == 422
    assert f"1 row(s) are out of range: {row}; cache '{kind}' has rows 0 to 4" in response.json()["detail"]


@pytest.mark.parametrize("row", [2**63 - 1, 2**63, 2**64 - 1])
def test_wide_rows_out_of_range_are_422(row: int, http: httpx2.Client) -> None:
    content, headers = np.array([0, row], np.uint64).tobytes(), {"Content-Type": WIDE_ROWS}
    response = http.post("/ragged/records", content=content, headers=headers)
    assert response.status_code == 422
    assert str(row) in response.json()["detail"]
    half = http.post("/ragged/records", content=content[:12], headers=headers)
    assert "little-endian uint64, so its length is a multiple of 8; got 12" in half.json()["detail"]


def test_the_limit_counts_records(http: httpx2.Client) -> None:
    for kind, rows, found in (("grid", [0, 1, 2, 3], 24), ("ragged", [0, 0, 0, 0, 0, 2], 21)):
        response = post(http, kind, rows)
        assert response.status_code == 413
        assert f"have {found} records, this server answers with at most 20" in response.json()["detail"]
    assert post(http, "ragged", [0] * 5).status_code == 200
    assert post(http, "ragged", [1] * 21).status_code == 413  # rows without a record are rows
    as_json = http.post("/grid/records", json={"rows": [0, 1, 2]}, headers={"Accept": JSON})
    assert as_json.status_code == 413
    assert "18 records at once, this server answers with at most 12" in as_json.json()["detail"]


def test_an_answer_that_would_hide_the_counts_is_refused(http: httpx2.Client) -> None:
    response = http.post("/ragged/records", json={"rows": [0]}, headers={"Accept": RECORDS})
    assert response.status_code == 406
    assert COUNTED in response.json()["detail"]


def test_a_view_of_rows_without_records(tmp_path: Path) -> None:
    nothing, basis = np.zeros((2, 0, 12), np.float32), np.eye(12, dtype=np.float32)
    write_positions(tmp_path / "c.zarr", RAGGED, nothing, (0, 0, 0), fitted_to=basis)
    with serving(Settings(caches=(str(tmp_path / "c.zarr"),), port=0)) as base:
        url = f"{base}/v1/caches/ragged"
        assert httpx2.get(f"{url}/views/1/records").content == bytes(24)
        body = httpx2.post(f"{url}/records", json={"rows": [2, 0]}, headers={"Accept": JSON}).json()
    assert body["records"] == []
    assert body["counts"] == [0, 0]


def test_blocks_come_and_go_where_the_budget_holds_one(tmp_path: Path) -> None:
    path = shutil.copytree(GOLDEN / "v3/ragged.zarr", tmp_path / "c.zarr")
    cache = open_cache(path)
    expected: list[NDArray[np.uint8]] = [cache.read_page(view) for view in range(3)]
    settings = Settings(caches=(str(path),), port=0, page_bytes=5 * cache.record_bytes)
    with serving(settings) as base, httpx2.Client(base_url=f"{base}/v1/caches/ragged") as http:
        for view in (0, 1, 2, 0):
            response = http.post(f"/records?view={view}", json={"rows": [0, 1, 2, 3, 4]})
            assert response.content[40:] == expected[view].tobytes()
