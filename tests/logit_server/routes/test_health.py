import os
import shutil
from pathlib import Path

import httpx2

from logit_server.run import serving
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
