from __future__ import annotations

import asyncio
import gzip
import threading

import httpx2
import numcodecs
import pytest

from cache_builder.format import Cache
from cache_builder.format.content_digest import content_digest
from cache_builder.format.wire import DIGEST_HEADER, NDJSON
from logit_server import compression
from logit_server.compression import acceptable

CACHE = "/v1/caches/synthetic"


def raw(client: httpx2.Client, path: str, accepted: str, **headers: str) -> tuple[httpx2.Response, bytes]:
    """An answer and the bytes of its body as they were sent."""
    with client.stream("GET", path, headers={"Accept-Encoding": accepted, **headers}) as response:
        return response, b"".join(response.iter_raw())


@pytest.mark.parametrize(
    ("header", "codings"),
    [("", set()), ("gzip", {"gzip"}), ("zstd, gzip", {"zstd", "gzip"}), ("gzip;q=0, zstd;q=0.5", {"zstd"}),
     ("GZIP ; q=1", {"gzip"}), ("gzip;q=0.000", set()), ("br, deflate, *", set())],
)  # fmt: skip
def test_what_a_client_accepts(header: str, codings: set[str]) -> None:
    assert acceptable(header) == codings


@pytest.mark.parametrize(("coding", "decode"), [("gzip", gzip.decompress), ("zstd", numcodecs.Zstd().decode)])
def test_a_manifest_is_compressed(client: httpx2.Client, coding: str, decode) -> None:
    _, plain = raw(client, CACHE, "identity")
    response, sent = raw(client, CACHE, coding)
    assert (response.headers["content-encoding"], response.headers["vary"]) == (coding, "Accept-Encoding")
    assert len(sent) < len(plain) / 2
    assert bytes(decode(sent)) == plain
    assert response.headers[DIGEST_HEADER] == content_digest(sent)


def test_a_table_in_pieces_is_gzip(client: httpx2.Client) -> None:
    _, plain = raw(client, f"{CACHE}/ids", "identity")
    response, sent = raw(client, f"{CACHE}/ids", "zstd, gzip")
    assert response.headers["content-encoding"] == "gzip"
    assert gzip.decompress(sent) == plain


def test_the_tag_of_other_bytes_is_weak_and_still_fresh(client: httpx2.Client) -> None:
    response, _ = raw(client, CACHE, "gzip")
    tag = response.headers["etag"]
    assert tag.startswith('W/"')
    again, body = raw(client, CACHE, "gzip", **{"If-None-Match": tag})
    assert (again.status_code, body) == (304, b"")


def test_records_are_sent_as_they_are(client: httpx2.Client, cache: Cache) -> None:
    response, sent = raw(client, f"{CACHE}/views/1/records", "zstd, gzip")
    assert "content-encoding" not in response.headers
    assert sent == cache.read_page(1).tobytes()


def test_lines_of_records_are_compressed(client: httpx2.Client) -> None:
    _, plain = raw(client, f"{CACHE}/views/1/records", "identity", Accept=NDJSON)
    _, sent = raw(client, f"{CACHE}/views/1/records", "gzip", Accept=NDJSON)
    assert gzip.decompress(sent) == plain


def test_large_bodies_are_compressed_beside_other_requests() -> None:
    """In a thread: a table of a million ids takes a tenth of a second."""
    threads: list[str] = []

    def compress(body: bytes, _is_last: bool) -> bytes:
        threads.append(threading.current_thread().name)
        return body

    async def both() -> None:
        await compression._run(compress, bytes(100), True)
        await compression._run(compress, bytes(2**17), True)

    asyncio.run(both())
    assert threads[0] == threading.main_thread().name
    assert threads[1] != threads[0]


def test_what_is_small_is_not_compressed(client: httpx2.Client) -> None:
    response, _ = raw(client, "/healthz", "gzip")
    assert "content-encoding" not in response.headers
