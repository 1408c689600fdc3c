"""Bytes by key: on a folder and on an object store (fsspec's in-memory one)."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from zarr.abc.store import Store

from cache_builder.format import ConfigError, KDCacheError
from cache_builder.format.store import (
    delete_object,
    list_keys,
    local_root,
    object_sizes,
    open_store,
    read_bytes,
    read_many,
    write_durably,
)


@pytest.fixture(params=["folder", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    location = tmp_path / "store" if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    return open_store(location, read_only=False)


def test_what_was_written_is_read(store: Store) -> None:
    write_durably(store, "commits/a.json", b"one")
    write_durably(store, "commits/a.json", b"two")
    assert read_bytes(store, "commits/a.json") == b"two"
    assert list_keys(store, "commits/") == ["commits/a.json"]


def test_what_is_not_there_is_none(store: Store) -> None:
    write_durably(store, "a/b", b"12")
    assert read_many(store, ["a/b", "a/c", "x/y/z"]) == [b"12", None, None]
    assert object_sizes(store, ["a/c", "a/b", "x/y/z"]) == [None, 2, None]


def test_answers_come_in_the_order_of_the_questions(store: Store) -> None:
    keys = [f"k/{i:03d}" for i in range(100)]
    for i, key in enumerate(keys):
        write_durably(store, key, bytes(i + 1))
    assert object_sizes(store, keys[::-1]) == list(range(100, 0, -1))
    assert [len(data or b"") for data in read_many(store, keys)] == list(range(1, 101))


def test_deleting_twice_is_fine(store: Store) -> None:
    write_durably(store, "a/b", b"1")
    delete_object(store, "a/b")
    delete_object(store, "a/b")
    assert read_bytes(store, "a/b") is None


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    store = open_store(tmp_path, read_only=False)
    write_durably(store, "a", b"good")
    with pytest.raises(TypeError):
        write_durably(store, "a", "not bytes")  # type: ignore[arg-type]
    assert read_bytes(store, "a") == b"good"


def test_a_folder_in_the_place_of_an_object_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "records" / "c").mkdir(parents=True)
    store = open_store(tmp_path, read_only=False)
    with pytest.raises(KDCacheError, match=r"records/c is a folder where the store has a file: move it away"):
        write_durably(store, "records/c", b"good")
    assert [path.name for path in tmp_path.rglob("*")] == ["records", "c"]


def test_locations(tmp_path: Path) -> None:
    assert local_root(open_store(tmp_path, read_only=True)) == tmp_path
    assert local_root(open_store(f"file://{tmp_path}", read_only=True)) == tmp_path
    assert local_root(open_store("memory://x", read_only=True)) is None


def test_an_unknown_protocol_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="nowhere://x cannot be opened"):
        open_store("nowhere://x", read_only=True)


def test_a_file_is_a_store_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    assert read_bytes(open_store(tmp_path / "file", read_only=True), "zarr.json") is None
