"""A listing says what there is and how large it is, on disks and on object stores alike."""

import functools
import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from cache_builder.console.progress import SILENT
from cache_builder.format.errors import CorruptCacheError
from cache_builder.format.listing import Listed, listing
from cache_builder.format.store import open_store, write_durably
from cache_builder.look.inspect import describe
from cache_builder.verify.report import Outcome
from cache_builder.verify.run import verify
from cache_builder.verify.settings import VerifySettings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.object_store import BUCKET, counted_http, s3_server


def test_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "cache.zarr"
    write_synthetic_cache(path, synthetic_logits(2, 16, 12))
    files = {str(file.relative_to(path)): file.stat().st_size for file in path.rglob("*") if file.is_file()}
    found = listing(open_store(path, read_only=True))
    assert {key: one.size for key, one in found.items()} == files


def test_of_a_bucket_one_request_tells_sizes_and_what_the_bytes_certainly_are() -> None:
    with s3_server():
        store = open_store(f"s3://{BUCKET}/a", read_only=False)
        objects = {"x": b"some bytes", "folder/y": b"", "folder/z": b"more"}
        for key, data in objects.items():
            write_durably(store, key, data)
        with counted_http() as seen:
            found = listing(store)
        assert len(seen) == 1
    assert {key: one.size for key, one in found.items()} == {key: len(data) for key, data in objects.items()}
    assert all(found[key].is_certainly(data) for key, data in objects.items())
    assert not found["x"].is_certainly(b"other byte")


def test_nobody_is_certain_without_a_tag() -> None:
    data = b"some bytes"
    assert not Listed(len(data)).is_certainly(data)
    tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert Listed(len(data), tag).is_certainly(data)
    assert not Listed(len(data) + 1, tag).is_certainly(data)


class WithoutFolderPages(http.server.SimpleHTTPRequestHandler):
    """As most web servers are: files are served, and folders are refused."""

    def list_directory(self, path: object) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Nobody wants to read it."""


def test_a_web_server_that_lists_nothing_has_a_whole_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.zarr"
    write_synthetic_cache(path, synthetic_logits(2, 16, 12), tile_rows=8)
    handler = functools.partial(WithoutFolderPages, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/cache.zarr"
        assert describe(url, None, 0).size == describe(str(path), None, 0).size
        report = verify(VerifySettings(cache=url), SILENT)
        assert not any(check.outcome is Outcome.DAMAGED for check in report.checks)
        next(path.glob("records/**/c/*/*")).unlink()
        with pytest.raises(CorruptCacheError, match="records/"):
            describe(url, None, 0)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
