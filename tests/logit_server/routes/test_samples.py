import urllib.parse
from pathlib import Path

import httpx2
import pytest

from cache_builder.format import Cache
from logit_server.run import serving
from logit_server.settings import Settings
from tests.logit_server.odd_cache import INVALID_ROW, ODD_IDS, write_odd_cache
from tests.logit_server.raw_client import answer, connect

BASE = "/v1/caches/synthetic/samples"


def test_a_sample_is_decoded_with_names(client: httpx2.Client, cache: Cache) -> None:
    body = client.get(f"{BASE}/dir/img_00042.png", params={"view": 1}).json()
    logits = cache.decode(cache.read_page(1)[42:43])[0]
    assert (body["row"], body["view"], body["sample_id"]) == (42, 1, "dir/img_00042.png")
    assert (body["label"], body["label_name"], body["valid"]) == (2, "class 2", True)
    assert len(body["top"]) == 5
    for stored in body["top"]:
        assert stored["logit"] == pytest.approx(logits[stored["class_id"]], abs=1e-5)
        assert stored["name"] == f"class {stored['class_id']}"
    assert sum(stored["probability"] for stored in body["top"]) + body["tail_mass"] == pytest.approx(
        1, abs=1e-5
    )


def test_fewer_classes_can_be_asked_for(client: httpx2.Client) -> None:
    whole = client.get(f"{BASE}/dir/img_00042.png").json()
    part = client.get(f"{BASE}/dir/img_00042.png", params={"top": 2}).json()
    assert part["top"] == whole["top"][:2]
    assert part["tail_mass"] == whole["tail_mass"]


@pytest.mark.parametrize("row", range(len(ODD_IDS)))
def test_odd_ids_are_found_when_they_are_escaped(row: int, client: httpx2.Client) -> None:
    escaped = urllib.parse.quote(ODD_IDS[row], safe="")
    response = client.get(f"/v1/caches/odd/samples/{escaped}")
    assert response.status_code == 200, response.text
    assert (response.json()["row"], response.json()["sample_id"]) == (row, ODD_IDS[row])


def test_a_line_break_more_is_another_id(client: httpx2.Client) -> None:
    for more in ("%0A", "%0D", "/", "%00"):
        assert client.get(f"{BASE}/dir/img_00042.png{more}").status_code == 404


def test_slashes_need_no_escape(client: httpx2.Client) -> None:
    assert client.get("/v1/caches/odd/samples/a/b/c.png").json()["sample_id"] == "a/b/c.png"


def test_an_unreadable_sample_is_marked(client: httpx2.Client) -> None:
    escaped = urllib.parse.quote(ODD_IDS[INVALID_ROW], safe="")
    body = client.get(f"/v1/caches/odd/samples/{escaped}").json()
    assert (body["valid"], body["top"], body["lse"]) == (False, [], None)


def test_an_unknown_sample_is_404(client: httpx2.Client, cache: Cache) -> None:
    response = client.get(f"{BASE}/dir/nope.png")
    assert (response.status_code, response.json()["error"]) == (404, "UnknownSampleError")
    assert "'dir/nope.png'" in response.json()["detail"]
    assert response.headers["x-kdcache-id"] == cache.manifest.cache_id


@pytest.mark.parametrize("escaped", ["%FF%FE", "%ED%A0%80", "%00", ""])
def test_what_cannot_be_an_id_is_404(escaped: str, client: httpx2.Client) -> None:
    assert client.get(f"{BASE}/{escaped}").status_code == 404


@pytest.mark.parametrize("query", ["view=3", "view=-1", "view=x", "top=0", "top=6", "top=x", "veiw=1"])
def test_what_is_out_of_range_is_422(query: str, client: httpx2.Client) -> None:
    response = client.get(f"{BASE}/dir/img_00042.png?{query}")
    assert (response.status_code, response.json()["error"]) == (422, "RequestError")


def test_a_sample_as_html_is_406(client: httpx2.Client) -> None:
    assert client.get(f"{BASE}/dir/img_00042.png", headers={"Accept": "text/html"}).status_code == 406


def test_a_sample_has_an_entity_tag_of_its_own(client: httpx2.Client) -> None:
    path = f"{BASE}/dir/img_00042.png"
    tags = {client.get(path + query).headers["etag"] for query in ("", "?view=1", "?top=2")}
    assert len(tags) == 3
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("row", range(len(ODD_IDS)))
def test_an_id_as_a_query_is_the_id_exactly(row: int, client: httpx2.Client) -> None:
    body = client.get("/v1/caches/odd/samples", params={"id": ODD_IDS[row], "view": 0}).json()
    assert (body["row"], body["sample_id"]) == (row, ODD_IDS[row])


@pytest.mark.parametrize("other", [".", "..", "../x", "dir/img_00042.png\n", "dir//img_00042.png", ""])
def test_an_id_as_a_query_that_is_not_there_is_404(other: str, client: httpx2.Client) -> None:
    assert client.get(BASE, params={"id": other}).status_code == 404


@pytest.mark.parametrize("path", [f"{BASE}?id=a%FF", f"{BASE}?id=%ED%A0%80&view=0", f"{BASE}?%FF=1"])
def test_a_query_that_is_not_utf_8_is_refused_and_never_another_id(path: str, url: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(url, request.encode("latin-1")) as client:
        response, body = answer(client)
    assert response.status == 422
    assert b"must be UTF-8" in body


def test_a_path_that_is_not_utf_8_is_never_the_id_with_replacement_characters(tmp_path: Path) -> None:
    ids = ["a\ufffd", "%FF", "%", "ı", "é", "e\u0301"]
    write_odd_cache(tmp_path / "c.zarr", ids)
    with serving(Settings(caches=(str(tmp_path / "c.zarr"),), port=0)) as base:
        here = f"{base}/v1/caches/odd/samples"
        assert httpx2.get(f"{here}/a%EF%BF%BD").json()["row"] == 0
        assert httpx2.get(f"{here}/a%FF").status_code == 404
        for row, sample_id in enumerate(ids):
            assert httpx2.get(here, params={"id": sample_id}).json()["row"] == row
            escaped = urllib.parse.quote(sample_id, safe="")
            assert httpx2.get(f"{here}/{escaped}").json()["row"] == row
        assert httpx2.get(here, params={"id": "i"}).status_code == 404


def test_a_query_without_an_id_or_with_two_is_refused(client: httpx2.Client) -> None:
    assert client.get(BASE).status_code == 422
    for query in ("id=dir/img_00042.png&id=dir/img_00043.png", "id=dir/img_00042.png&view=0&v%69ew=1"):
        response = client.get(f"{BASE}?{query}")
        assert (response.status_code, "given 2 times" in response.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("samples?id=a&viwe=1", "did you mean view?"),
        ("views/0/records?strat=1", "did you mean start?"),
        ("?top=1", "takes none"),
    ],
)
def test_an_unknown_key_of_a_query_is_refused_by_name(query: str, said: str, client: httpx2.Client) -> None:
    separator = "" if query.startswith("?") else "/"
    response = client.get(f"/v1/caches/synthetic{separator}{query}")
    assert response.status_code == 422
    assert "unknown query parameter" in response.json()["detail"]
    assert said in response.json()["detail"]
