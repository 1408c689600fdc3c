"""Which library a URL is reached through."""

from __future__ import annotations

import pickle

import pytest

from cache_builder.format import ConfigError
from cache_builder.format.backends.opening import open_backend
from cache_builder.format.backends.over_fsspec import FsspecBackend
from cache_builder.format.backends.over_obstore import ObstoreBackend
from cache_builder.format.remote import RemoteStore
from cache_builder.format.store import open_store

_ABFSS = "abfss://box@account.dfs.core.windows.net"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")


@pytest.mark.parametrize(
    ("url", "kind", "root", "path"),
    [
        ("s3://bucket/a/b.zarr", ObstoreBackend, "s3://bucket", "a/b.zarr"),
        ("S3A://bucket/a/", ObstoreBackend, "s3://bucket", "a"),
        ("gs://bucket", ObstoreBackend, "gs://bucket", ""),
        ("az://box/a", ObstoreBackend, "az://box", "a"),
        ("abfss://box@account.dfs.core.windows.net/a", ObstoreBackend, _ABFSS, "a"),
        ("memory://x/a", FsspecBackend, "memory://x", "a"),
        ("https://host:8/a/c.zarr/", FsspecBackend, "https://host:8/a/c.zarr", ""),
    ],
)
def test_a_url_is_a_backend_and_a_path(url: str, kind: type, root: str, path: str) -> None:
    backend, found = open_backend(url)
    assert (type(backend), backend.root, found) == (kind, root, path)
    again, _ = open_backend(f"{backend.root}/{path}")
    assert again.root == backend.root


def test_clients_are_kept_until_the_environment_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = open_backend("s3://bucket/a")
    assert open_backend("s3://bucket/b")[0] is first
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert open_backend("s3://bucket/b")[0] is not first


@pytest.mark.parametrize("url", ["s3://", "nowhere://x/y"])
def test_a_url_that_nothing_reaches_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError, match=url):
        open_backend(url)


def test_the_web_can_only_be_read() -> None:
    with pytest.raises(ConfigError, match="can only be read"):
        open_store("https://host/c.zarr", read_only=False)


def test_a_store_travels_to_another_process() -> None:
    store = RemoteStore.from_url("s3://bucket/a", read_only=True)
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read_only
    assert str(again) == "s3://bucket/a"
