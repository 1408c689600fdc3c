import shutil
import threading
from pathlib import Path

import httpx2
import pytest

from logit_server import looks
from logit_server.places import Place
from logit_server.run import serving
from logit_server.settings import Settings
from tests.format.damage import changed

RECORDS = "/v1/caches/synthetic/views/0/records"
READY = "/v1/caches/synthetic/ready"


@pytest.fixture(autouse=True)
def every_look_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "FRESH_S", 0)


def checks(response: httpx2.Response) -> list[str]:
    return [failed["check"] for failed in response.json()["failed"]]


def test_a_running_server_is_alive_and_ready(client: httpx2.Client) -> None:
    for path in ("/healthz", "/livez"):
        assert client.get(path).json() == {"status": "ok", "caches": ["synthetic", "odd"]}
    assert client.get("/readyz").json() == {"status": "ready", "caches": ["synthetic", "odd"]}
    assert client.get(READY).json() == {"status": "ready", "caches": ["synthetic"]}
    assert client.get("/v1/caches/nothing/ready").status_code == 404


def test_head_is_enough_to_check(client: httpx2.Client) -> None:
    assert {client.head(path).status_code for path in ("/healthz", "/livez", "/readyz", READY)} == {200}


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", READY])
def test_health_takes_no_query(path: str, client: httpx2.Client) -> None:
    response = client.get(f"{path}?verbose=1")
    assert (response.status_code, response.json()["error"]) == (422, "RequestError")


def test_a_page_folder_that_cannot_be_used_is_named(cache_path: Path, tmp_path: Path) -> None:
    with serving(Settings(caches=(str(cache_path),), port=0, page_dir=tmp_path)) as base:
        (folder,) = tmp_path.iterdir()
        shutil.rmtree(folder)
        assert httpx2.get(f"{base}/readyz").status_code == 200  # a load would make it anew, too
        shutil.rmtree(folder)
        folder.write_bytes(b"in the way")
        for path in ("/readyz", READY):
            response = httpx2.get(base + path)
            assert (response.status_code, response.json()["error"]) == (503, "StorageError")
            assert checks(response) == ["pages"]
            assert "page_dir" in response.json()["detail"]
            assert str(tmp_path) not in response.text
            assert "retry-after" in response.headers
        assert httpx2.get(base + RECORDS).status_code == 503
        assert httpx2.get(f"{base}/healthz").status_code == 200
        folder.unlink()
        assert httpx2.get(f"{base}/readyz").status_code == 200


def test_a_server_is_ready_again_when_its_store_is_there_again(own_cache: Path, odd_path: Path) -> None:
    with serving(Settings(caches=(str(own_cache), str(odd_path)), port=0)) as base:
        own_cache.rename(own_cache.with_name("elsewhere"))
        for path in (RECORDS, "/readyz", READY):
            response = httpx2.get(base + path)
            assert (response.status_code, response.json()["error"]) == (503, "StorageError"), path
            assert "retry-after" in response.headers
            assert str(own_cache.parent) not in response.text
        assert response.json()["failed"][0]["cache"] == "synthetic"
        assert httpx2.get(f"{base}/v1/caches/odd/ready").status_code == 200
        assert {httpx2.get(base + path).status_code for path in ("/healthz", "/livez")} == {200}
        own_cache.with_name("elsewhere").rename(own_cache)
        assert {httpx2.get(base + path).status_code for path in (RECORDS, "/readyz", READY)} == {200}


def test_a_damaged_manifest_is_not_ready_and_not_called_out_of_reach(own_cache: Path) -> None:
    with serving(Settings(caches=(str(own_cache),), port=0)) as base:
        with changed(own_cache / "zarr.json", b"{"):
            ready, records = httpx2.get(base + READY), httpx2.get(base + RECORDS)
        assert (ready.status_code, ready.json()["error"]) == (503, "NotReadyError")
        assert (records.status_code, records.json()["error"]) == (500, "CorruptCacheError")
        assert "zarr.json is damaged" in ready.json()["detail"]
        assert httpx2.get(base + READY).status_code == httpx2.get(base + RECORDS).status_code == 200


def test_a_full_server_is_not_ready_and_says_so(cache_path: Path) -> None:
    with serving(Settings(caches=(str(cache_path),), port=0, max_in_flight=1)) as base:
        assert httpx2.get(f"{base}/readyz").status_code == 200
    # A limit that the health request itself uses up: no other one would find room.
    full = Settings(caches=(str(cache_path),), port=0).model_copy(update={"max_in_flight": 0})
    with serving(full) as base:
        for path in ("/readyz", READY):
            response = httpx2.get(base + path)
            assert (response.status_code, response.json()["error"]) == (503, "OverloadedError")
            assert checks(response) == ["limits"]
        assert httpx2.get(f"{base}/livez").status_code == 200


def test_a_store_that_hangs_is_not_ready_and_costs_one_thread(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, goes_on = [], threading.Event()

    def hang(place: Place, **_: object) -> None:
        if place.location == str(own_cache):  # other servers of the session look at their own
            hanging.append(place.location)
            goes_on.wait(30)

    monkeypatch.setattr(looks, "LOOK_S", 0.2)
    with serving(Settings(caches=(str(own_cache),), port=0, look_s=100)) as base:
        monkeypatch.setattr(Place, "look", hang)
        answers = [httpx2.get(base + path) for path in ("/readyz", "/readyz", READY)]
        assert httpx2.get(f"{base}/livez").status_code == 200
        goes_on.set()
    assert [answer.status_code for answer in answers] == [503] * 3
    assert "did not answer within" in answers[0].json()["detail"]
    assert hanging == [str(own_cache)]
