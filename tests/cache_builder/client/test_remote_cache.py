"""What the client makes of answers that no kdcache server gives today: a small server of canned ones."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import numpy as np
import pytest

from cache_builder.client import remote_cache as remote_module
from cache_builder.client.patience import Patience, seconds_until
from cache_builder.client.remote_cache import RemoteCache
from cache_builder.format import ConfigError, KDCacheError, ServerError
from cache_builder.format.backoff import FIRST_DELAY_S, LONGEST_DELAY_S
from cache_builder.format.content_digest import content_digest
from cache_builder.format.wire import ID_HEADER
from tests.caches import synthetic_manifest
from tests.format.test_golden import GOLDEN
from tests.trainer.servers import server

MANIFEST = synthetic_manifest().model_copy(update={"cache_id": "a" * 32})
BODY = json.dumps(MANIFEST.model_dump(mode="json")).encode()
Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (200, {ID_HEADER: "a" * 32}, BODY)


@contextlib.contextmanager
def canned(answer: Callable[[BaseHTTPRequestHandler, int], Answer]) -> Iterator[str]:
    """A server whose n-th answer is ``answer(request, n)``."""
    count = iter(range(1000))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = answer(self, next(count))
            self.send_response(status)
            # With X-Cut, the connection ends before so many bytes have come.
            for name, value in {**headers, "Content-Length": headers.get("X-Cut", str(len(body)))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}/v1/caches/c"
        finally:
            web.shutdown()
            thread.join()


@contextlib.contextmanager
def source(url: str, token: str | None = None, patience_s: float = 20.0) -> Iterator[RemoteCache]:
    opened = RemoteCache.at(url, token, patience_s)
    try:
        yield opened
    finally:
        opened.close()


def test_the_token_is_sent():
    seen = []

    def answer(request, _):
        seen.append(request.headers["Authorization"])
        return OK

    with canned(answer) as url, source(url, token="secret") as remote:
        assert remote.manifest().name == "synthetic"
    assert seen == ["Bearer secret"]


def test_a_refusal_names_the_variable():
    refusal = json.dumps({"error": "AuthError", "detail": "who are you?"}).encode()
    with (
        canned(lambda *_: (401, {}, refusal)) as url,
        source(url) as remote,
        pytest.raises(ServerError, match=r"HTTP 401 who are you\?; set KDCACHE_TOKEN"),
    ):
        remote.manifest()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_out(status):
    def answer(_, number):
        return OK if number >= 2 else (status, {}, b"proxy: nobody home")

    with canned(answer) as url, source(url) as remote:
        assert remote.manifest().cache_id == "a" * 32


class Recorder(threading.Event):
    """An event that notes how long it was waited for instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


def test_waits_grow_to_a_limit_with_jitter():
    recorder = Recorder()
    patience = Patience("somewhere", 120.0, recorder)
    for _ in range(12):
        patience.wait("gone", None)
    longest = [min(FIRST_DELAY_S * 2**n, LONGEST_DELAY_S) for n in range(12)]
    assert all(0.5 * top <= wait <= top for wait, top in zip(recorder.waits, longest, strict=True))
    assert len({wait / top for wait, top in zip(recorder.waits, longest, strict=True)}) > 1


def test_the_server_says_how_long_to_wait():
    recorder = Recorder()
    Patience("somewhere", 120.0, recorder).wait("busy", "30")
    # Not before, and not all trainers at the same instant.
    (wait,) = recorder.waits
    assert 30.0 < wait < 31.5


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        (None, 0, 0),
        ("", 0, 0),
        ("soon", 0, 0),
        ("-3", 0, 0),
        ("7", 7, 7),
        (" 7 ", 7, 7),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        (email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 3000, 3600),
    ],
    ids=["none", "empty", "words", "negative", "seconds", "spaces", "past", "in an hour"],
)
def test_retry_after_is_seconds_or_a_date(given: str | None, least: float, most: float) -> None:
    assert least <= seconds_until(given) <= most


def test_patience_ends():
    recorder = Recorder()
    with pytest.raises(ServerError, match="did not answer for 0 s: gone"):
        Patience("somewhere", 0.0, recorder).wait("gone", None)
    assert recorder.waits == []


def test_a_run_goes_on_by_the_id_of_its_cache():
    asked = []

    def answer(request, _):
        asked.append(request.path)
        return OK if len(asked) == 1 else (200, {ID_HEADER: "a" * 32}, b"")

    with canned(answer) as url, source(url) as remote:
        remote.manifest()
        with pytest.raises(ServerError, match="answered 0 bytes"):
            remote.records(0, np.arange(3))
    assert asked == ["/v1/caches/c", f"/v1/caches/{'a' * 32}/records?view=0"]


def test_a_server_that_knows_the_name_alone_is_asked_by_it():
    asked = []

    def answer(request, _):
        asked.append(request.path)
        by_name = request.path.startswith("/v1/caches/c")
        if len(asked) == 1:
            return OK
        return (200, {ID_HEADER: "a" * 32}, b"") if by_name else (404, {}, b"")

    with canned(answer) as url, source(url) as remote:
        remote.manifest()
        for _ in range(2):
            with pytest.raises(ServerError, match="answered 0 bytes"):
                remote.records(0, np.arange(3))
    by_name = "/v1/caches/c/records?view=0"
    assert asked == ["/v1/caches/c", f"/v1/caches/{'a' * 32}/records?view=0", by_name, by_name]


def test_trouble_with_another_cache_stops_at_once():
    def answer(_, number):
        return OK if number == 0 else (503, {ID_HEADER: "b" * 32}, b"")

    with canned(answer) as url, source(url) as remote:
        remote.manifest()
        with pytest.raises(ServerError, match="the cache was replaced"):
            remote.records(0, np.arange(3))


@pytest.mark.parametrize("body", [b"", b"x" * 29])
def test_an_answer_of_the_wrong_length_is_refused(body):
    def answer(_, number):
        return OK if number == 0 else (200, {ID_HEADER: "a" * 32}, body)

    with canned(answer) as url, source(url) as remote:
        remote.manifest()
        with pytest.raises(ServerError, match=rf"answered {len(body)} bytes for 3 records"):
            remote.records(0, np.arange(3))


@pytest.mark.parametrize("is_coded", [True, False])
def test_an_answer_that_does_not_end_is_not_read_on(is_coded):
    """A hundred megabytes for three records, of which a hundred kilobytes travel where they are coded."""
    size = 100 * 2**20
    coded = gzip.compress(bytes(size), 1) if is_coded else bytes(size // 10)
    headers = {ID_HEADER: "a" * 32} | ({"Content-Encoding": "gzip"} if is_coded else {})

    with canned(lambda _, n: (200, headers, coded) if n else OK) as url, source(url) as remote:
        remote.manifest()
        with pytest.raises(ServerError, match=r"more than 1,048,576 bytes, which no answer there has"):
            remote.records(0, np.arange(3))


def test_a_coded_answer_that_is_damaged_is_asked_for_again():
    damaged = {ID_HEADER: "a" * 32, "Content-Encoding": "gzip"}
    with canned(lambda _, n: OK if n else (200, damaged, b"no gzip")) as url, source(url) as remote:
        assert remote.manifest().cache_id == "a" * 32


def test_the_token_is_not_sent_on_to_where_a_server_points():
    seen = []

    def other(request, _):
        seen.append(request.headers["Authorization"])
        return OK

    with (
        canned(other) as there,
        canned(lambda *_: (307, {"Location": there, ID_HEADER: "a" * 32}, b"")) as url,
        source(url, token="secret") as remote,
        pytest.raises(ServerError, match="HTTP 307"),
    ):
        remote.manifest()
    assert seen == []


def test_a_server_that_asks_to_wait_for_years_is_waited_for_patiently_and_no_longer():
    with (
        canned(lambda *_: (503, {"Retry-After": "1000000000"}, b"")) as url,
        source(url, patience_s=0.5) as remote,
        pytest.raises(ServerError, match="did not answer for"),
    ):
        remote.manifest()


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[]", b"null", b"1e999", b"{}", b"\xff", b"9" * 10_000])
@pytest.mark.parametrize("status", [200, 404])
def test_odd_documents_are_errors_that_say_where_they_come_from(status, body):
    with (
        canned(lambda *_: (status, {ID_HEADER: "a" * 32}, body)) as url,
        source(url) as remote,
        pytest.raises(KDCacheError, match=re.escape(url)),
    ):
        remote.manifest()


def test_what_a_server_says_steers_no_terminal():
    said = json.dumps({"error": "X", "detail": "\x1b]0;mine\x07" + "a" * 100_000}).encode()
    with (
        canned(lambda *_: (422, {}, said)) as url,
        source(url) as remote,
        pytest.raises(ServerError) as error,
    ):
        remote.manifest()
    assert "\\x1b]0;mine\\x07" in str(error.value)
    assert len(str(error.value)) < 5000


def npy_of(header: str) -> bytes:
    """An array file of numpy with this header, and nothing after it."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x05\x06" + bytes(18),
        b"\x80\x04N.",
        b"\x93NUMPY\x01\x00\x03\x00(((",
        b"\x93NUMPY\x01\x00\x44\x00{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}  \n",
        b"\x93NUMPY\x01\x00\x3a\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}      \n",
        npy_of(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**30},)}}"),
        npy_of("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 7: 0}"),
    ],
)
def test_what_is_no_array_is_refused(content):
    def answer(request, _):
        return 200, {ID_HEADER: "a" * 32}, content if "arrays" in request.path else BODY

    with canned(answer) as url, source(url) as remote, pytest.raises(ServerError, match="is not an array"):
        remote.array("codec/logits/mean")


@pytest.mark.parametrize(
    ("path", "array"),
    [
        ("codec/logits/mean", np.zeros(39, np.float32)),
        ("codec/logits/mean", np.zeros(40, np.float64)),
        ("samples/label", np.zeros((100, 1), np.int32)),
        ("samples/id_offsets", np.zeros(101, np.complex128)),
        ("samples/class_name_bytes", np.array("text")),
        ("samples/digest", np.zeros(1, np.uint64)),
    ],
)
def test_an_array_that_is_not_what_the_manifest_says_is_refused(path: str, array: np.ndarray):
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)

    def answer(request, _):
        return 200, {ID_HEADER: "a" * 32}, buffer.getvalue() if "arrays" in request.path else BODY

    with (
        canned(answer) as url,
        source(url) as remote,
        pytest.raises(ServerError, match=f"{path} is .*expected"),
    ):
        remote.array(path)


def test_an_array_may_be_as_large_as_those_of_such_a_cache_and_no_larger():
    import io

    def answer(request, _):
        return 200, {ID_HEADER: "a" * 32}, array if "arrays" in request.path else BODY

    def npy(nbytes: int) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(nbytes, np.uint8))
        return buffer.getvalue()

    most_bytes = remote_module._array_bytes(MANIFEST)
    array = npy(most_bytes - len(npy(0)))
    with canned(answer) as url, source(url) as remote:
        assert len(remote.array("samples/id_bytes")) == most_bytes - len(npy(0))
        array += b"x"
        with pytest.raises(ServerError, match=f"more than {most_bytes:,} bytes"):
            remote.array("samples/id_bytes")


@pytest.mark.parametrize(
    ("samples", "classes"), [(40, 10), (1_281_167, 1000), (3_000_000_000, 1000), (40, 10**6)]
)
def test_the_largest_array_of_a_cache_is_allowed(samples: int, classes: int):
    large = synthetic_manifest(rows=samples, classes=classes)
    # Ids are paths of some hundred bytes; digests are words of eight; so are offsets.
    most_bytes = remote_module._array_bytes(large)
    assert 300 * (samples + classes) < most_bytes < 2**21 + 5000 * (samples + classes)


def test_an_array_that_is_not_its_digest_is_refused():
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.zeros(40, np.float32))
    sealed = MANIFEST.model_copy(update={"digests": {"codec/logits/mean": "0" * 16}})
    manifest = json.dumps(sealed.model_dump(mode="json")).encode()

    def answer(request, _):
        return 200, {ID_HEADER: "a" * 32}, buffer.getvalue() if "arrays" in request.path else manifest

    with (
        canned(answer) as url,
        source(url) as remote,
        pytest.raises(ServerError, match="codec/logits/mean does not match its digest"),
    ):
        remote.array("codec/logits/mean")


def test_something_that_is_no_manifest_is_refused():
    with (
        canned(lambda *_: (200, {ID_HEADER: "a" * 32}, b"<html>")) as url,
        source(url) as remote,
        pytest.raises(ServerError, match="did not answer with a manifest"),
    ):
        remote.manifest()


def test_a_url_that_is_none_is_refused():
    from cache_builder.format import ConfigError

    with source("http://") as remote, pytest.raises(ConfigError, match="is not a URL"):
        remote.manifest()


def test_a_damaged_answer_is_asked_for_again():
    """A proxy, a cable or a memory that flips one bit: the length is right, the checksum is not."""
    whole = {ID_HEADER: "a" * 32, "Content-Digest": content_digest(BODY)}

    def answer(_, number):
        damaged = bytearray(BODY)
        damaged[len(damaged) // 2] ^= number < 2
        return 200, whole, bytes(damaged)

    with canned(answer) as url, source(url) as remote:
        assert remote.manifest().model_dump() == MANIFEST.model_dump()


def test_answers_that_stay_damaged_are_never_believed():
    headers = {ID_HEADER: "a" * 32, "Content-Digest": content_digest(BODY + b"x")}
    with (
        canned(lambda *_: (200, headers, BODY)) as url,
        source(url, patience_s=0.1) as remote,
        pytest.raises(ServerError, match="the answer is damaged"),
    ):
        remote.manifest()


def test_this_machine_is_not_asked_through_a_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with canned(lambda *_: OK) as url, source(url, patience_s=0) as remote:
        assert remote.manifest().name == "synthetic"


def test_a_proxy_that_fails_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:pass@127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with (
        source("http://cache.example.org:8000/v1/caches/c", patience_s=0) as remote,
        pytest.raises(ServerError, match=r"proxy http://127\.0\.0\.1:9 of the environment") as caught,
    ):
        remote.manifest()
    assert "pass" not in str(caught.value)


def test_a_token_from_a_file_loses_its_line_end():
    seen = []

    def answer(request, _):
        seen.append(request.headers["Authorization"])
        return OK

    with canned(answer) as url, source(url, token="secret\n") as remote:
        remote.manifest()
    assert seen == ["Bearer secret"]


@pytest.mark.parametrize("token", ["two words", "s\u00e9cret", "a\nb"])
def test_a_token_that_no_header_takes_is_refused_without_showing_it(token):
    with pytest.raises(ConfigError, match="visible ASCII") as caught, source("http://127.0.0.1:9/c", token):
        pass
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("counts", "lengths"),
    [
        ([], []),
        ([1] * 10, [4, 4, 2]),
        ([0] * 9, [4, 4, 1]),  # a row without a record is a row of a request all the same
        ([2, 2, 2], [2, 1]),
        ([9, 1, 9, 0, 3], [1, 1, 1, 2]),
    ],
)
def test_requests_ask_for_so_many_records_and_one_row_at_least(counts, lengths, monkeypatch):
    monkeypatch.setattr(remote_module, "RECORDS_PER_REQUEST", 4)
    parts = list(remote_module._requests(np.array(counts, np.int64)))
    assert [part.stop - part.start for part in parts] == lengths
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(counts)))


@pytest.mark.parametrize("spoil", [lambda body: body[:-1], lambda body: b"\1" + body[1:]])
def test_counts_that_are_not_those_of_the_cache_are_refused(spoil):
    with server(GOLDEN / "v3/ragged.zarr") as url:

        def answer(request, _):
            below = re.sub("^/v1/caches/[^/]+", "", request.path)
            true = httpx2.get(url + below)
            body = spoil(true.content) if "/views/" in request.path else true.content
            return 200, {ID_HEADER: true.headers[ID_HEADER]}, body

        with (
            canned(answer) as between,
            source(between) as remote,
            pytest.raises(ServerError, match=r"for 10 records of \d+ bytes after their counts"),
        ):
            remote.page(0)
