import io
import json
from copy import copy
from pathlib import Path

import httpx2
import numpy as np
import pytest

from cache_builder.format import Cache, open_cache
from cache_builder.format.manifest import parse_manifest
from cache_builder.format.wire import NPY
from logit_server.routes.caches import fidelity
from logit_server.run import serving
from logit_server.served_caches import ServedCache
from logit_server.settings import Settings
from tests.format.damage import changed, flipped
from tests.logit_server.odd_cache import ODD_IDS
from tests.rate_points import rate_point, with_table

BASE = "/v1/caches/synthetic"


def test_the_list_names_every_cache_in_order(client: httpx2.Client, cache: Cache) -> None:
    synthetic, odd = client.get("/v1/caches").json()["caches"]
    assert synthetic == {
        "name": "synthetic",
        "cache_id": cache.manifest.cache_id,
        "samples": 100,
        "views": 3,
        "classes": 40,
        "record_bytes": cache.record_bytes,
        "fidelity": None,
    }
    assert odd["name"] == "odd"


def test_the_list_says_what_a_cache_keeps_of_its_teacher(cache: Cache, cache_path: Path) -> None:
    blurred = with_table(rate_point(40, 0.2, (0.97, 0.85), 0.6), lose=0.1, manifest=cache.manifest)
    other = copy(cache)
    other._manifest = blurred
    found = fidelity(ServedCache("a", other, "0"))
    assert found is not None
    records = [path for path in (cache_path / "records").rglob("c/**/*") if path.is_file()]
    assert found.total_bytes == sum(path.stat().st_size for path in records)
    assert found.bytes_per_view == found.total_bytes / 300
    assert (found.lost, found.kd_cosines, found.gradient_cosine) == (0.2, (0.97, 0.85), 0.6)
    assert found.measured_on == "held-out views"
    assert found.in_words["lost"].startswith("20 % of the variance")
    assert ["--lose 0.1" in line for line in found.warnings] == [True, False]


def test_the_manifest_is_the_stored_one(client: httpx2.Client, cache: Cache, cache_path: Path) -> None:
    response = client.get(BASE)
    stored = json.loads((cache_path / "zarr.json").read_text())["attributes"]["kdcache"]
    assert response.json() == stored
    assert parse_manifest(response.json(), "the server").model_dump() == cache.manifest.model_dump()
    assert response.headers["x-kdcache-id"] == cache.manifest.cache_id


@pytest.mark.parametrize("path", [BASE, f"{BASE}/ids", f"{BASE}/arrays/codec/logits/mean"])
def test_what_does_not_change_is_sent_once(path: str, client: httpx2.Client, cache: Cache) -> None:
    first = client.get(path)
    assert str(cache.manifest.cache_id) in first.headers["etag"]
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["x-kdcache-id"] == cache.manifest.cache_id


@pytest.mark.parametrize("path", ["", "/ids", "/arrays/codec/logits/mean", "/samples/x", "/views/0/records"])
def test_an_unknown_cache_is_404(path: str, client: httpx2.Client) -> None:
    response = client.get(f"/v1/caches/nope{path}")
    assert (response.status_code, response.json()["error"]) == (404, "UnknownCacheError")


def test_every_array_is_served_as_npy(client: httpx2.Client, cache: Cache) -> None:
    for path in cache.manifest.digests:
        response = client.get(f"{BASE}/arrays/{path}")
        assert response.headers["content-type"] == NPY
        loaded = np.load(io.BytesIO(response.content), allow_pickle=False)
        np.testing.assert_array_equal(loaded, cache.header_array(path), strict=True)


def test_digests_are_served_as_npy(client: httpx2.Client, cache: Cache) -> None:
    loaded = np.load(io.BytesIO(client.get(f"{BASE}/arrays/samples/digest").content), allow_pickle=False)
    np.testing.assert_array_equal(loaded, cache.digests, strict=True)


@pytest.mark.parametrize("path", ["nope", "records/logits/lse", "../../etc/passwd", "zarr.json"])
def test_an_unknown_array_is_404(path: str, client: httpx2.Client) -> None:
    response = client.get(f"{BASE}/arrays/{path.replace('.', '%2E')}")
    assert (response.status_code, response.json()["error"]) == (404, "UnknownArrayError")


def test_a_damaged_array_is_500(own_cache: Path) -> None:
    file = own_cache / "samples" / "digest" / "c" / "1"
    with serving(Settings(caches=(str(own_cache),), port=0)) as base:
        with changed(file, flipped(file.read_bytes(), 200)):
            response = httpx2.get(f"{base}{BASE}/arrays/samples/digest")
            assert (response.status_code, response.json()["error"]) == (500, "CorruptCacheError")
            assert str(own_cache) not in response.text
        assert httpx2.get(f"{base}{BASE}/arrays/samples/digest").status_code == 200


def test_the_id_table(client: httpx2.Client, cache: Cache) -> None:
    response = client.get(f"{BASE}/ids")
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    expected = zip(range(100), cache.ids, cache.labels.tolist(), strict=True)
    assert [(line["row"], line["id"], line["label"]) for line in lines] == list(expected)


def test_an_id_table_longer_than_a_chunk(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = client.get(f"{BASE}/ids").text
    monkeypatch.setattr("logit_server.routes.caches._IDS_PER_CHUNK", 7)
    assert client.get(f"{BASE}/ids").text == whole


def test_odd_ids_come_through_one_a_line(client: httpx2.Client) -> None:
    lines = client.get("/v1/caches/odd/ids").content.split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == [
        {"row": row, "id": sample_id, "label": None} for row, sample_id in enumerate(ODD_IDS)
    ]


def test_head_of_the_id_table_has_no_body(client: httpx2.Client) -> None:
    response = client.head(f"{BASE}/ids")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("path", ["/ids", "/arrays/codec/logits/mean"])
def test_other_types_are_406(path: str, client: httpx2.Client) -> None:
    assert client.get(BASE + path, headers={"Accept": "text/html"}).status_code == 406


def test_the_cache_is_the_one_the_reader_opens(client: httpx2.Client, odd_path: Path) -> None:
    assert client.get("/v1/caches/odd").headers["x-kdcache-id"] == open_cache(odd_path).manifest.cache_id
