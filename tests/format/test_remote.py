"""What goes wrong on the way to a store: a sentence, never a traceback, and never called damage."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_builder.format import FormatError, KDCacheError, StorageError, open_cache
from cache_builder.format.store import open_store, read_bytes
from cache_builder.format.waiting import patience_at_most
from tests.format.conftest import Written
from tests.object_store import BUCKET, free_port, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as client:
        yield client


class Folder(http.server.SimpleHTTPRequestHandler):
    """Python's own: it knows no ranges, and answers such a request with the whole file."""

    status: int | None = None
    cut = False

    def do_GET(self) -> None:
        if self.status is not None:
            self.send_error(self.status)
        elif self.cut:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nobody wants to read it."""


@pytest.fixture
def served(tail_cache: Written) -> Iterator[tuple[str, type[Folder]]]:
    """A cache behind a plain HTTP server, and how that server behaves."""
    handler = type("Handler", (Folder,), {})

    def make(*arguments: Any) -> Folder:
        return handler(*arguments, directory=str(tail_cache.path))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_without_ranges_gives_the_same_records(
    served: tuple[str, type[Folder]], tail_cache: Written
) -> None:
    remote, local = open_cache(served[0]), open_cache(tail_cache.path)
    for view in range(local.manifest.views.count):
        assert remote.read_page(view).tobytes() == local.read_page(view).tobytes()


def test_answers_that_are_no_answers(served: tuple[str, type[Folder]]) -> None:
    url, server = served
    cache = open_cache(url)
    server.status = 403
    with pytest.raises(StorageError, match="refuses access") as refused:
        cache.read_page(0)
    assert not refused.value.waiting_helps
    server.status = 503
    with pytest.raises(StorageError) as passing:
        cache.read_page(0)
    assert passing.value.waiting_helps
    server.status, server.cut = None, True
    with pytest.raises(StorageError, match="cut short"):
        cache.read_page(0)
    server.cut = False
    assert len(cache.read_page(0))


def test_a_caller_who_waits_himself_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCACHE_STORE_PATIENCE_S", "100000")
    store = open_store(f"http://127.0.0.1:{free_port()}/c.zarr", read_only=True)
    with patience_at_most(0), pytest.raises(StorageError, match="nothing answers"):
        read_bytes(store, "zarr.json")


def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}/c.zarr"
    with pytest.raises(StorageError, match=r"nothing answers") as caught:
        open_cache(url)
    assert url in str(caught.value)
    assert caught.value.exit_code == 6


def test_buckets_and_prefixes_that_are_not_there(s3: Any) -> None:
    with pytest.raises(StorageError, match="no bucket of this name"):
        open_cache("s3://no-such-bucket/c.zarr")
    with pytest.raises(FormatError, match="no cache here"):
        open_cache(f"s3://{BUCKET}/no-such-prefix")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9"}, "the endpoint is 127.0.0.1:9"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "nothing answers"),
    ],
)
def test_what_is_wrong_with_the_environment_is_said(
    s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str | None], said: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(KDCacheError) as caught:
        read_bytes(open_store(f"s3://{BUCKET}/c.zarr", read_only=True), "zarr.json")
    assert isinstance(caught.value, StorageError)
    assert said in str(caught.value)


def test_a_folder_that_went_away_is_not_damaged_and_comes_back(tail_cache: Written) -> None:
    cache = open_cache(tail_cache.path)
    expected = cache.read_page(1).tobytes()
    cache = open_cache(tail_cache.path)
    shutil.move(tail_cache.path, tail_cache.path.with_name("elsewhere"))
    with pytest.raises(StorageError, match="out of reach"):
        cache.read_page(1)
    shutil.move(tail_cache.path.with_name("elsewhere"), tail_cache.path)
    assert cache.read_page(1).tobytes() == expected
