"""Caches on object stores and web servers: what does not answer is away, and heals by itself."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from cache_builder.format import Cache, CorruptCacheError, StorageError, open_cache
from logit_server.errors import ReplacedCacheError
from logit_server.places import Place
from logit_server.storage import public_error
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.test_remote import Folder
from tests.object_store import BUCKET, free_port, s3_server

DESTROYS = ("--repair", "rebuild", "delete")


@pytest.fixture
def web(own_cache: Path) -> Iterator[tuple[str, type[Folder]]]:
    """A cache behind a web server, and how that behaves."""
    handler = type("Handler", (Folder,), {})

    def make(*arguments: Any) -> Folder:
        return handler(*arguments, directory=str(own_cache))

    server = ThreadingHTTPServer(("127.0.0.1", 0), make)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def page(cache: Cache) -> bytes:
    return cache.read_page(1).tobytes()


def check_is_away(place: Place, cache: Cache) -> None:
    for attempt in (place.look, lambda: place.read(cache, page)):
        with pytest.raises(StorageError) as caught:
            attempt()
        assert not any(word in str(caught.value) for word in DESTROYS)
        said = str(public_error("c", place.location, "view 1", caught.value))
        assert "out of reach" in said
        assert "127.0.0.1" not in said
        assert place.location not in said


@pytest.mark.parametrize("status", [403, 404, 500, 502, 503, 504])
def test_a_web_server_that_refuses_or_fails(web: tuple[str, type[Folder]], status: int) -> None:
    url, server = web
    cache = open_cache(url)
    place, expected = Place(cache), page(cache)
    server.status = status
    check_is_away(place, cache)
    server.status = None
    assert place.read(cache, page) == expected
    assert place.now is cache


def test_answers_that_break_off(web: tuple[str, type[Folder]]) -> None:
    url, server = web
    cache = open_cache(url)
    place, expected = Place(cache), page(cache)
    server.cut = True
    check_is_away(place, cache)
    server.cut = False
    assert place.read(cache, page) == expected


def test_damage_behind_a_web_server_is_damage(web: tuple[str, type[Folder]], own_cache: Path) -> None:
    cache = open_cache(web[0])
    shard = own_cache / "records/logits/topk_residual/c/0/1/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CorruptCacheError, match="rows 32-63"):
        Place(cache).read(cache, page)


def test_an_object_store_that_is_stopped_emptied_or_holds_another_cache() -> None:
    location, logits = f"s3://{BUCKET}/c.zarr", synthetic_logits(2, 40, 10)
    with s3_server() as s3:
        write_synthetic_cache(location, logits)
        cache = open_cache(location)
        place, expected = Place(cache), page(cache)
        assert place.read(cache, page) == expected

        kept = {item["Key"]: _content(s3, item["Key"]) for item in _listed(s3)}
        for key in kept:
            s3.delete_object(Bucket=BUCKET, Key=key)
        check_is_away(place, cache)  # the whole prefix is gone
        s3.delete_bucket(Bucket=BUCKET)
        check_is_away(place, cache)
        s3.create_bucket(Bucket=BUCKET)
        for key, content in kept.items():
            s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        assert place.read(cache, page) == expected

        shard = next(key for key in kept if "/records/" in key and "/c/0/" in key)
        s3.delete_object(Bucket=BUCKET, Key=shard)
        with pytest.raises(CorruptCacheError, match="is missing"):
            place.read(cache, lambda now: now.read_page(0))
        s3.put_object(Bucket=BUCKET, Key=shard, Body=kept[shard])
        assert place.read(cache, page) == expected

        for key in kept:
            s3.delete_object(Bucket=BUCKET, Key=key)
        write_synthetic_cache(location, synthetic_logits(2, 40, 10, seed=1))
        with pytest.raises(ReplacedCacheError):
            place.read(cache, page)
        assert place.read(place.now, page) == page(open_cache(location))


def _listed(s3: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    return found


def _content(s3: Any, key: str) -> bytes:
    content: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return content


def test_an_object_store_that_nobody_listens_at_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    location, port = f"s3://{BUCKET}/silent.zarr", free_port()
    with s3_server():
        write_synthetic_cache(location, synthetic_logits(2, 40, 10))
        here = open_cache(location)
        body, commits, expected = here.body, here.commits_as_stored(), page(here)
        # A cache whose store was open before, and is asked where nobody listens by now.
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        keys = (tile.key for tile in here.tiles)
        cache = Cache(location, body, dict(zip(keys, commits, strict=True)))
        place = Place(cache)
        check_is_away(place, cache)
        again = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        again.start()
        try:
            assert place.read(cache, page) == expected
        finally:
            again.stop()
