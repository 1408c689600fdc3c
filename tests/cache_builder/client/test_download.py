"""Whole views as files: broken off, damaged, replaced, and right in the end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2
import pytest

from cache_builder.client import Client, ServerError
from cache_builder.client.download import _alone
from cache_builder.format import ConfigError, open_cache
from tests.cache_builder.client.test_remote_cache import Answer, canned
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.trainer.servers import server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caches") / "a.zarr"
    write_synthetic_cache(path, synthetic_logits(2, 3000, 40), sketch=True)
    return path


@pytest.fixture(scope="module")
def view(store: Path) -> bytes:
    return open_cache(store).read_page(1).tobytes()


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    with server(store) as cache_url:
        yield cache_url


def test_a_view_is_a_file(url: str, view: bytes, tmp_path: Path) -> None:
    with Client(url) as client:
        assert client.download_view(1, tmp_path / "view").read_bytes() == view
    assert [file.name for file in tmp_path.iterdir()] == ["view"]


Spoil = Callable[[httpx2.Response, int], tuple[int, dict[str, str], bytes]]


def between(url: str, seen: list[str], spoil: Spoil) -> Callable[[BaseHTTPRequestHandler, int], Answer]:
    """A proxy in front of a server that spoils the answers about views."""
    count = iter(range(1000))

    def answer(request: BaseHTTPRequestHandler, _: int) -> Answer:
        sent = {name: request.headers[name] for name in ("Range", "If-Range") if request.headers[name]}
        path = re.sub("^/v1/caches/[^/]+", "", request.path)  # by name first, then by id
        true = httpx2.get(url + path, headers=sent | {"Accept-Encoding": "identity"}, timeout=60)
        if "/views/" not in path:
            return true.status_code, _kept(true), true.content
        seen.append(sent.get("Range", ""))
        return spoil(true, next(count))

    return answer


def _kept(response: httpx2.Response) -> dict[str, str]:
    dropped = {"content-length", "transfer-encoding", "connection", "date", "server"}
    return {name: value for name, value in response.headers.items() if name not in dropped}


def cut(nbytes: int, times: int) -> Spoil:
    """The connection breaks after so many bytes of the first answers."""

    def spoil(true: httpx2.Response, number: int) -> tuple[int, dict[str, str], bytes]:
        headers = _kept(true)
        if number >= times:
            return true.status_code, headers, true.content
        # http.server sends this length and the connection ends before so many bytes.
        return true.status_code, headers | {"X-Cut": str(len(true.content))}, true.content[:nbytes]

    return spoil


def test_a_download_that_broke_off_goes_on(url: str, view: bytes, tmp_path: Path) -> None:
    seen: list[str] = []
    with canned(between(url, seen, cut(1000, 3))) as proxy, Client(proxy) as client:
        assert client.download_view(1, tmp_path / "view").read_bytes() == view
    assert seen == ["", "bytes=1000-", "bytes=2000-", "bytes=3000-"]


def test_more_bytes_than_the_whole_has_fill_no_disk(url: str, view: bytes, tmp_path: Path) -> None:
    def spoil(true: httpx2.Response, number: int) -> tuple[int, dict[str, str], bytes]:
        if not number:
            return cut(1000, 1)(true, 0)
        if number == 1:
            return true.status_code, _kept(true), true.content + bytes(2**22)
        assert (tmp_path / "view.part").stat().st_size <= len(view)
        return true.status_code, _kept(true), true.content

    with canned(between(url, [], spoil)) as proxy, Client(proxy) as client:
        assert client.download_view(1, tmp_path / "view").read_bytes() == view


def test_another_process_goes_on_too(url: str, view: bytes, tmp_path: Path) -> None:
    seen: list[str] = []
    with canned(between(url, seen, cut(1000, 99))) as proxy, Client(proxy, patience_s=0) as client:
        for _ in range(2):
            with pytest.raises(ServerError):
                client.download_view(1, tmp_path / "view")
    assert {file.name for file in tmp_path.iterdir()} == {"view.part", "view.part.json"}
    have = (tmp_path / "view.part").stat().st_size
    assert have >= 2000
    assert view.startswith((tmp_path / "view.part").read_bytes())
    with Client(url) as client:
        assert client.download_view(1, tmp_path / "view").read_bytes() == view
    assert [file.name for file in tmp_path.iterdir()] == ["view"]


def test_a_part_of_another_view_is_not_gone_on_with(url: str, view: bytes, tmp_path: Path) -> None:
    with (
        canned(between(url, [], cut(1000, 99))) as proxy,
        Client(proxy, patience_s=0) as client,
        pytest.raises(ServerError),
    ):
        client.download_view(0, tmp_path / "view")
    with Client(url) as client:
        assert client.download_view(1, tmp_path / "view").read_bytes() == view


def test_damage_is_never_put_in_its_place(url: str, view: bytes, tmp_path: Path) -> None:
    (tmp_path / "view").write_bytes(b"what was there before")

    def flip(true: httpx2.Response, number: int) -> tuple[int, dict[str, str], bytes]:
        body = bytearray(true.content)
        body[len(body) // 2] ^= 1
        return true.status_code, _kept(true), bytes(body)

    with (
        canned(between(url, [], flip)) as proxy,
        Client(proxy, patience_s=0.1) as client,
        pytest.raises(ServerError, match="the answer is damaged"),
    ):
        client.download_view(1, tmp_path / "view")
    assert (tmp_path / "view").read_bytes() == b"what was there before"
    assert not (tmp_path / "view.part").exists()


def test_damage_to_a_part_on_the_disk_is_found_and_mended(url: str, view: bytes, tmp_path: Path) -> None:
    with (
        canned(between(url, [], cut(1000, 99))) as proxy,
        Client(proxy, patience_s=0) as client,
        pytest.raises(ServerError),
    ):
        client.download_view(1, tmp_path / "view")
    part = tmp_path / "view.part"
    part.write_bytes(bytes(len(part.read_bytes())))
    with Client(url) as client:
        assert client.download_view(1, tmp_path / "view").read_bytes() == view


def test_a_note_that_cannot_be_read_begins_anew(url: str, view: bytes, tmp_path: Path) -> None:
    (tmp_path / "view.part").write_bytes(b"x" * 100)
    for note in ("{", json.dumps({"etag": "x"})):
        (tmp_path / "view.part.json").write_text(note)
        with Client(url) as client:
            assert client.download_view(1, tmp_path / "view").read_bytes() == view


def test_two_do_not_write_one_file(url: str, tmp_path: Path) -> None:
    with Client(url) as client:
        with _alone(tmp_path / "view"), pytest.raises(ConfigError, match="being downloaded already"):
            client.download_view(1, tmp_path / "view")
        assert client.download_view(1, tmp_path / "view").exists()


def test_another_cache_in_its_place_ends_the_download(url: str, tmp_path: Path) -> None:
    def replaced(true: httpx2.Response, number: int) -> tuple[int, dict[str, str], bytes]:
        return true.status_code, _kept(true) | {"x-kdcache-id": "b" * 32}, true.content

    with (
        canned(between(url, [], replaced)) as proxy,
        Client(proxy) as client,
        pytest.raises(ServerError, match="the cache was replaced"),
    ):
        client.download_view(1, tmp_path / "view")
    assert not (tmp_path / "view").exists()
