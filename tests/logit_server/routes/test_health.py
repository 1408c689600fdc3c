import os
import shutil
import threading
from pathlib import Path

import httpx2
import pytest

from logit_server.routes import health
from logit_server.run import serving
from logit_server.served_caches import ServedCache
from logit_server.settings import Settings


def test_a_running_server_is_healthy_and_ready(client: httpx2.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "caches": ["synthetic", "odd"]}
    assert client.get("/readyz").json() == {"status": "ready", "caches": ["synthetic", "odd"]}


def test_head_is_enough_to_check(client: httpx2.Client) -> None:
    assert client.head("/healthz").status_code == client.head("/readyz").status_code == 200


def test_a_server_without_its_page_folder_is_healthy_but_not_ready(cache_path: Path, tmp_path: Path) -> None:
    with serving(Settings(caches=(str(cache_path),), port=0, page_dir=tmp_path)) as base:
        (folder,) = tmp_path.iterdir()
        shutil.rmtree(folder)
        assert not os.access(folder, os.W_OK)
        response = httpx2.get(f"{base}/readyz")
        assert (response.status_code, response.json()["error"]) == (503, "StorageError")
        assert httpx2.get(f"{base}/healthz").status_code == 200


def test_a_server_is_ready_again_when_its_store_is_there_again(own_cache: Path) -> None:
    with serving(Settings(caches=(str(own_cache),), port=0)) as base:
        own_cache.rename(own_cache.with_name("elsewhere"))
        records = httpx2.get(f"{base}/v1/caches/synthetic/views/0/records")
        ready = httpx2.get(f"{base}/readyz")
        for response in (records, ready):
            assert (response.status_code, response.json()["error"]) == (503, "StorageError")
            assert "retry-after" in response.headers
            assert str(own_cache.parent) not in response.text
        assert httpx2.get(f"{base}/healthz").status_code == 200
        own_cache.with_name("elsewhere").rename(own_cache)
        assert httpx2.get(f"{base}/readyz").status_code == 200
        assert httpx2.get(f"{base}/v1/caches/synthetic/views/0/records").status_code == 200


def test_a_store_that_hangs_is_not_ready_and_costs_one_thread(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, goes_on = [], threading.Event()

    def hang(served: ServedCache) -> None:
        looks.append(served.name)
        goes_on.wait(30)

    monkeypatch.setattr(health, "LOOK_S", 0.05)
    monkeypatch.setattr(health, "check_reachable", hang)
    with serving(Settings(caches=(str(cache_path),), port=0)) as base:
        statuses = [httpx2.get(f"{base}/readyz").status_code for _ in range(3)]
        goes_on.set()
    assert statuses == [503] * 3
    assert looks == ["synthetic"]
