"""A cache opened over HTTP with zarr: its objects as they are."""

from __future__ import annotations

from pathlib import Path

import httpx2
import numpy as np
import pytest
import zarr

from cache_builder.format import Cache
from cache_builder.format.content_digest import matches
from cache_builder.format.wire import DIGEST_HEADER
from logit_server.run import serving
from logit_server.settings import Settings
from tests.logit_server.routes.test_records import refusal

OBJECTS = "/v1/caches/synthetic/zarr"


def files_of(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


def is_served(key: str) -> bool:
    return not key.startswith("commits/") and key != "zarr.json"


def test_zarr_opens_it_over_http(url: str, cache: Cache) -> None:
    group = zarr.open_group(f"{url}{OBJECTS}", mode="r")
    assert group.attrs["kdcache"]["cache_id"] == cache.manifest.cache_id
    for path in ("codec/logits/mean", "samples/label", "records/logits/topk_index"):
        expected = zarr.open_array(f"{cache.location}/{path}", mode="r")
        np.testing.assert_array_equal(group[path][...], expected[...])


def test_every_object_is_given_as_it_is(client: httpx2.Client, cache_path: Path) -> None:
    keys = [key for key in files_of(cache_path) if is_served(key)]
    assert len(keys) > 20
    for key in keys:
        response = client.get(f"{OBJECTS}/{key}", headers={"Accept-Encoding": "identity"})
        assert response.content == (cache_path / key).read_bytes(), key
        assert matches(response.content, response.headers[DIGEST_HEADER])


def test_some_bytes_of_a_shard(client: httpx2.Client, cache_path: Path) -> None:
    key = next(key for key in files_of(cache_path) if key.startswith("records/") and "/c/" in key)
    data = (cache_path / key).read_bytes()
    for asked, expected in (("bytes=-16", data[-16:]), ("bytes=3-9", data[3:10]), ("bytes=5-", data[5:])):
        response = client.get(f"{OBJECTS}/{key}", headers={"Range": asked})
        assert (response.status_code, response.content) == (206, expected)
    head = client.head(f"{OBJECTS}/{key}")
    assert (head.headers["content-length"], head.content) == (str(len(data)), b"")


@pytest.mark.parametrize(
    "key",
    ["", ".zarray", "zarr.jsonx", "records/logits", "commits/index", "..%2Fodd.zarr%2Fzarr.json",
     "codec%2F..%2Fcommits%2Findex", "samples/label/c/0x1", "samples/label/c/77", "records/c/0"],
)  # fmt: skip
def test_what_the_store_cannot_have_is_404(client: httpx2.Client, key: str) -> None:
    assert client.get(f"{OBJECTS}/{key}").status_code == 404


def test_what_should_be_there_is_damage(own_cache: Path) -> None:
    key = next(key for key in files_of(own_cache) if key.startswith("records/") and "/c/" in key)
    with serving(Settings(caches=(str(own_cache),), port=0)) as base, httpx2.Client(base_url=base) as client:
        (own_cache / key).unlink()
        assert key in refusal(client.get(f"{OBJECTS}/{key}"), 500, "CorruptCacheError")
        own_cache.rename(own_cache.with_name("elsewhere.zarr"))
        refusal(client.get(f"{OBJECTS}/{key}"), 503, "StorageError")
