"""Writing an object only where none is, or where it still is what was read: what claims rest on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from cache_builder.format.conditional import (
    create_object,
    first_keys,
    is_object,
    parent_stores,
    read_tagged,
    replace_object,
)
from cache_builder.format.store import open_store, write_durably
from tests.object_store import BUCKET, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as client:
        yield client


@pytest.fixture(params=["s3", "memory"])
def out(request: pytest.FixtureRequest, s3: Any) -> str:
    """A prefix where nothing is, on a store with conditional puts and on one with exclusive creation."""
    name = uuid.uuid4().hex
    return f"s3://{BUCKET}/{name}" if request.param == "s3" else f"memory://{name}"


def test_conditional_puts(out: str) -> None:
    store = open_store(out, read_only=False)
    first = create_object(store, "k", b"1")
    assert first is not None
    assert create_object(store, "k", b"2") is None
    assert create_object(store, "k", b"1") == first  # a put that is repeated after a lost answer
    second = replace_object(store, "k", b"3", first)
    assert second is not None
    assert replace_object(store, "k", b"4", first) is None
    assert replace_object(store, "gone", b"4", first) is None
    assert read_tagged(store, "k") == second
    assert read_tagged(store, "gone") is None


def test_the_first_keys_are_enough_to_know(out: str) -> None:
    store = open_store(out, read_only=False)
    assert first_keys(store, 3) == []
    for name in ("b", "a/deep", "c", "d"):
        write_durably(store, name, b"x")
    assert first_keys(store, 2) == ["a/deep", "b"]
    assert len(first_keys(store, 2000)) == 4


def test_what_lies_around_a_store(out: str) -> None:
    store = open_store(f"{out}/x/y", read_only=False)
    assert not is_object(store)
    write_durably(open_store(out, read_only=False), "x/y", b"an object")
    assert is_object(store)
    assert [str(parent) for parent in parent_stores(store)][-2:] == [out, f"{out}/x"]
