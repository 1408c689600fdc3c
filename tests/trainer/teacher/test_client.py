"""The client against a real server on loopback, and against a folder: the same bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx2
import numpy as np
import pytest

from cache_builder.client import remote_cache as remote
from cache_builder.format import (
    CorruptCacheError,
    DataError,
    FormatError,
    ServerError,
    StorageError,
    UnknownSampleError,
    open_cache,
)
from cache_builder.format.content_digest import matches
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.extended import extend_synthetic
from tests.trainer.servers import free_port, server
from trainer.teacher.client import TeacherCache

VIEWS, ROWS, CLASSES = 3, 100, 40


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caches") / "a.zarr"
    write_synthetic_cache(path, synthetic_logits(VIEWS, ROWS, CLASSES), sketch=True)
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caches") / "b.zarr"
    write_synthetic_cache(path, synthetic_logits(VIEWS, ROWS, CLASSES, seed=1))
    return path


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    with server(store) as cache_url:
        yield cache_url


@pytest.fixture(params=["http", "path"])
def cache(request: pytest.FixtureRequest, store: Path) -> Iterator[TeacherCache]:
    location = request.getfixturevalue("url") if request.param == "http" else str(store)
    with TeacherCache.open(location) as opened:
        yield opened


def test_everything_a_trainer_needs_equals_the_store(cache, store):
    expected = open_cache(store)
    assert cache.manifest.model_dump() == expected.manifest.model_dump()
    assert cache.cache_id == expected.manifest.cache_id
    assert cache.record_bytes == expected.record_bytes
    np.testing.assert_array_equal(cache.codec.basis, expected.codec.basis)
    np.testing.assert_array_equal(cache.codec.mean, expected.codec.mean)
    np.testing.assert_array_equal(cache.codec.centres, expected.codec.centres)
    assert expected.codec.centres.any()
    assert list(cache.ids) == list(expected.ids)
    np.testing.assert_array_equal(cache.labels, expected.labels)
    np.testing.assert_array_equal(cache.digests, expected.digests)
    np.testing.assert_array_equal(cache.probe_pixels, expected.probe_pixels)


def test_rows_come_in_their_order_repeats_included(cache, store):
    page = open_cache(store).read_page(1)
    rows = [7, 99, 0, 7, 42]
    records = cache.fetch(1, rows)
    assert records.dtype == np.uint8
    assert records.flags.writeable
    np.testing.assert_array_equal(records, page[rows])
    np.testing.assert_array_equal(cache.fetch(1, np.array(rows)), page[rows])


def test_a_whole_view_gives_the_same_bytes(cache, monkeypatch):
    monkeypatch.setattr(remote, "RECORDS_PER_REQUEST", 33)
    for view in range(VIEWS):
        page = cache.fetch_page(view)
        np.testing.assert_array_equal(page, cache.fetch(view, np.arange(ROWS)))


def test_no_rows_give_no_records(cache):
    assert cache.fetch(0, []).shape == (0, cache.record_bytes)


def test_records_decode_to_the_logits(cache):
    logits = synthetic_logits(VIEWS, ROWS, CLASSES)
    decoded = cache.codec.decode(cache.codec.unpack(cache.fetch(2, [5])))
    assert decoded.argmax() == logits[2, 5].argmax()


def test_rows_for_ids(cache):
    assert cache.rows_for(["dir/img_00007.png", "dir/img_00003.png"]).tolist() == [7, 3]
    with pytest.raises(UnknownSampleError, match="'no such'"):
        cache.rows_for(["no such"])


@pytest.mark.parametrize(("view", "row"), [(3, 0), (-1, 0), (0, 100), (0, -1)])
def test_views_and_rows_out_of_range_are_refused(cache, view, row):
    with pytest.raises(DataError, match=r"out of range|must lie in"):
        cache.fetch(view, [row])


def test_a_path_without_a_cache_is_refused(tmp_path):
    with pytest.raises(FormatError, match="no cache here"):
        TeacherCache.open(str(tmp_path))


def test_an_unknown_name_is_refused_at_once(url):
    with pytest.raises(ServerError, match=r"404.*v1/caches/NAME"):
        TeacherCache.open(url + "x")


def test_something_else_than_a_kdcache_server_is_refused():
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            with pytest.raises(ServerError, match="not a cache of a kdcache server"):
                TeacherCache.open(f"http://127.0.0.1:{web.server_port}")
        finally:
            web.shutdown()
            thread.join()


def test_a_server_that_never_answers_is_given_up_after_the_patience():
    with pytest.raises(ServerError, match="did not answer for 1 s: ConnectError"):
        TeacherCache.open(f"http://127.0.0.1:{free_port()}/v1/caches/c", patience_s=1)


def test_a_server_that_comes_back_is_waited_for(store, caplog):
    port = free_port()
    with server(store, port) as url:
        cache = TeacherCache.open(url)
        expected = cache.fetch(0, [1, 2, 3])
    back = threading.Event()

    def bring_back() -> None:
        time.sleep(1)
        with server(store, port):
            back.wait()

    thread = threading.Thread(target=bring_back)
    thread.start()
    try:
        np.testing.assert_array_equal(cache.fetch(0, [1, 2, 3]), expected)
    finally:
        back.set()
        thread.join()
        cache.close()
    assert "trying again" in caplog.text
    assert "answers again" in caplog.text


def test_another_cache_under_the_same_url_stops_the_run(store, other):
    port = free_port()
    with server(store, port) as url:
        cache = TeacherCache.open(url)
        cache.fetch(0, [0])
    with server(other, port), cache, pytest.raises(ServerError, match="the cache was replaced"):
        cache.fetch(0, [0])


def test_closing_ends_a_request_that_waits(store):
    port = free_port()
    with server(store, port) as url:
        cache = TeacherCache.open(url)
    failed: list[BaseException] = []

    def fetch() -> None:
        try:
            cache.fetch(0, [0])
        except ServerError as error:
            failed.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    time.sleep(0.5)
    cache.close()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert "closed" in str(failed[0])


def test_a_damaged_tile_is_named_and_not_asked_for_again(tmp_path):
    path = tmp_path / "c.zarr"
    write_synthetic_cache(path, synthetic_logits(VIEWS, ROWS, CLASSES))
    shard = path / "records/logits/topk_value/c" / "0" / "0" / "0"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    with server(path) as url, TeacherCache.open(url) as cache:
        shard.write_bytes(damaged)
        with pytest.raises(CorruptCacheError, match="rows 0-31"):
            cache.fetch(0, [0])


@pytest.mark.parametrize("way", ["http", "path"])
def test_a_store_that_is_away_is_waited_for(tmp_path, caplog, way):
    path = tmp_path / "c.zarr"
    write_synthetic_cache(path, synthetic_logits(VIEWS, ROWS, CLASSES))
    expected = open_cache(path).read_page(1)
    with server(path) as url, TeacherCache.open(url if way == "http" else str(path)) as cache:
        path.rename(tmp_path / "elsewhere")
        timer = threading.Timer(1, lambda: (tmp_path / "elsewhere").rename(path))
        timer.start()
        np.testing.assert_array_equal(cache.fetch_page(1), expected)
        timer.join()
    assert "out of reach" in caplog.text
    assert "answers again" in caplog.text


def test_a_store_that_stays_away_is_a_storage_error(tmp_path):
    path = tmp_path / "c.zarr"
    write_synthetic_cache(path, synthetic_logits(VIEWS, ROWS, CLASSES))
    with TeacherCache.open(str(path), patience_s=0.1) as cache:
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(StorageError, match="out of reach"):
            cache.fetch(0, [0])


def test_records_carry_a_checksum(url):
    rows = np.arange(5, dtype="<u4").tobytes()
    headers = {"Content-Type": "application/vnd.kdcache.rows", "Accept": "application/vnd.kdcache.records"}
    as_it_is = {"Accept-Encoding": "identity"}
    answers = [
        httpx2.post(f"{url}/records", content=rows, headers=headers),
        httpx2.get(f"{url}/views/0/records", params={"start": 3, "stop": 9}),
        httpx2.get(f"{url}/arrays/samples/digest", headers=as_it_is),
        httpx2.get(url, headers=as_it_is),
    ]
    for answer in answers:
        assert matches(answer.content, answer.headers["Content-Digest"])
        assert not matches(
            answer.content[:-1] + bytes([answer.content[-1] ^ 1]), answer.headers["Content-Digest"]
        )


def test_a_run_finishes_on_a_cache_that_is_extended_meanwhile(tmp_path):
    path = tmp_path / "own.zarr"
    write_synthetic_cache(path, synthetic_logits(3, 100, 40), sketch=True)
    expected = [open_cache(path).read_page(view) for view in range(3)]
    with server(path) as url, TeacherCache.open(url) as cache:
        np.testing.assert_array_equal(cache.fetch_page(0), expected[0])
        extended = extend_synthetic(path, 5).completed_id
        for view in (1, 2):
            np.testing.assert_array_equal(cache.fetch_page(view), expected[view])
        deadline = time.monotonic() + 120
        while httpx2.get(url, timeout=120).headers["x-kdcache-id"] != extended:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        np.testing.assert_array_equal(cache.fetch(2, [7, 3]), expected[2][[7, 3]])
        with TeacherCache.open(url) as another:
            assert another.manifest.views.count == 5
