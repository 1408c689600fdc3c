"""obstore on a real S3 protocol, behind a proxy that spoils answers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest

from cache_builder.format import StorageError
from cache_builder.format.conditional import create_object, first_keys, replace_object
from cache_builder.format.store import (
    delete_object,
    list_keys,
    object_sizes,
    open_store,
    read_bytes,
    read_range,
    write_durably,
)
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.object_store import BUCKET, objects, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as client:
        yield client


@pytest.fixture(scope="module")
def proxy(s3: Any) -> Iterator[FaultyProxy]:
    with faulty_proxy(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port or 0) as proxy:
        changes = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}", "KDCACHE_STORE_TIMEOUT_S": "0.5"}
        with mock.patch.dict(os.environ, changes):
            yield proxy


@pytest.fixture
def out(proxy: FaultyProxy) -> Iterator[str]:
    """A prefix where nothing is; the proxy is honest again afterwards."""
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    proxy.fault, proxy.share = None, 1.0


CONTENT = bytes(range(256)) * 40


def test_a_server_without_ranges_gives_the_same_bytes(proxy: FaultyProxy, out: str) -> None:
    store = open_store(out, read_only=False)
    write_durably(store, "k", CONTENT)
    proxy.fault = "no ranges"
    assert read_range(store, "k", range(100, 300)) == CONTENT[100:300]
    before = proxy.requests
    assert read_range(store, "k", range(300, 500)) == CONTENT[300:500]
    assert proxy.requests == before + 1  # it is known by now


def test_bytes_that_change_on_the_way_are_asked_for_again(proxy: FaultyProxy, out: str) -> None:
    store = open_store(out, read_only=False)
    write_durably(store, "k", CONTENT)
    proxy.fault, proxy.share = "flipped", 0.5
    assert all(read_bytes(store, "k") == CONTENT for _ in range(10))
    proxy.share = 1.0
    with pytest.raises(StorageError, match=rf"{out}/k .* changed on the way"):
        read_bytes(store, "k")


@pytest.mark.parametrize("fault", ["500", "503", "cut", "reset", "stalled"])
def test_trouble_now_and_then_is_not_noticed(proxy: FaultyProxy, out: str, fault: str) -> None:
    store = open_store(out, read_only=False)
    proxy.fault, proxy.share = fault, 0.3  # type: ignore[assignment]
    with mock.patch.dict(os.environ, {"KDCACHE_STORE_PATIENCE_S": "30"}):
        for number in range(6):
            created = create_object(store, f"k{number}", CONTENT)
            assert created is not None
            assert replace_object(store, f"k{number}", CONTENT[1:], created) is not None
            assert read_bytes(store, f"k{number}") == CONTENT[1:]
        assert first_keys(store, 3) == ["k0", "k1", "k2"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("403", "refuses access"),
        ("404 bucket", "no bucket of this name"),
        ("500", "failed or is overloaded"),
        ("503", "failed or is overloaded"),
        ("silent", "did not answer in time"),
        ("stalled", "did not answer in time"),
        ("cut", "cut short"),
        ("reset", "cut short"),
    ],
)
def test_each_fault_is_a_sentence_with_the_object(
    proxy: FaultyProxy, out: str, fault: str, said: str
) -> None:
    store = open_store(out, read_only=False)
    write_durably(store, "k", CONTENT)
    proxy.fault = fault  # type: ignore[assignment]
    with pytest.raises(StorageError, match=rf"{out}/k cannot be reached or read: .*{said}") as caught:
        read_bytes(store, "k")
    assert "\n" not in str(caught.value)
    assert "Debug" not in str(caught.value)
    assert "<" not in str(caught.value)


def test_names_that_mean_something_elsewhere(out: str) -> None:
    store = open_store(f"{out}/a [b]*?#%20 ü", read_only=False)
    write_durably(store, "c/*", b"1")
    assert read_bytes(store, "c/*") == b"1"
    assert list_keys(store, "c") == ["c/*"]
    assert object_sizes(store, ["c/*", "c"]) == [1, None]
    delete_object(store, "c/*")
    assert first_keys(store, 1) == []


def test_an_object_with_a_name_that_is_no_path_is_named(s3: Any, out: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=f"{out.rpartition('/')[2]}/a//b", Body=b"x")
    store = open_store(out, read_only=True)
    assert first_keys(store, 1) == ["a//b"]
    with pytest.raises(StorageError, match=r"a//b.* has an empty part"):
        list_keys(store, "")


def test_a_large_object_is_written_in_parts(
    proxy: FaultyProxy, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cache_builder.format.backends import over_obstore

    monkeypatch.setattr(over_obstore, "_LARGEST_SINGLE_PUT", 2**20)
    data = os.urandom(over_obstore._PART_BYTES + 5)
    write_durably(open_store(out, read_only=False), "k", data)
    assert objects(out.rpartition("/")[2])["k"] == data
    assert read_bytes(open_store(out, read_only=True), "k") == data


def test_a_forked_process_is_refused_and_does_not_hang(out: str) -> None:
    write_durably(open_store(out, read_only=False), "k", b"1")
    child = os.fork()
    if child == 0:
        try:
            read_bytes(open_store(out, read_only=True), "k")
        except StorageError as error:
            os._exit(7 if "forked" in str(error) else 8)
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
