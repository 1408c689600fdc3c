"""Commit objects: they describe one tile of one build, or they are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cache_builder.format import CorruptCacheError
from cache_builder.format.commits import Commit, Shard, make_commit, parse_commit
from cache_builder.format.layout import tile_arrays, tiles
from tests.caches import synthetic_manifest

MANIFEST = synthetic_manifest(views=3, rows=20, tile_views=2, tile_rows=8)
FIRST, *_, LAST = tiles(MANIFEST)


def commit_of(tile: Any = FIRST, invalid_rows: tuple[int, ...] = ()) -> Commit:
    shards = {spec.path: Shard(bytes=10, crc32=5) for spec in tile_arrays(MANIFEST, tile)}
    return make_commit(MANIFEST, "build", tile, invalid_rows, shards)


@pytest.mark.parametrize("tile", [FIRST, LAST], ids=["first", "last"])
def test_what_was_written_is_read_back(tile: Any) -> None:
    commit = commit_of(tile, (tile.row_stop - 1, tile.row_start))
    assert commit.invalid_rows == (tile.row_start, tile.row_stop - 1)
    assert parse_commit(commit.to_bytes(), MANIFEST, "build", tile, "here") == commit


def test_the_bytes_of_the_specification() -> None:
    body = json.loads(commit_of().to_bytes())
    assert body.pop("shards")["records/logits/lse"] == {"bytes": 10, "crc32": 5}
    assert body == {
        "build": "build", "tile": [0, 0], "views": [0, 2], "rows": [0, 8], "count": 16, "invalid_rows": []
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(build="another"),
        lambda body: body.update(tile=[0, 1]),
        lambda body: body.update(views=[0, 3]),
        lambda body: body.update(rows=[0, 9]),
        lambda body: body.update(count=15),
        lambda body: body.update(invalid_rows=[8]),
        lambda body: body.update(invalid_rows=[1, 0]),
        lambda body: body.update(invalid_rows=[1, 1]),
        lambda body: body.update(surprise=1),
        lambda body: body.pop("shards"),
        lambda body: body["shards"].pop("records/logits/lse"),
        lambda body: body["shards"].update(other={"bytes": 1, "crc32": 1}),
        lambda body: body["shards"]["records/logits/lse"].update(bytes=0),
        lambda body: body["shards"]["records/logits/lse"].update(crc32=2**32),
    ],
)
def test_anything_else_is_refused_and_names_the_tile(change: Callable[[dict[str, Any]], object]) -> None:
    body = json.loads(commit_of().to_bytes())
    change(body)
    with pytest.raises(
        CorruptCacheError, match=r"here: commits/g00000-b0000000.json \(views 0-1, rows 0-7\)"
    ):
        parse_commit(json.dumps(body).encode(), MANIFEST, "build", FIRST, "here")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"build":"\\ud800"}'])
def test_bytes_that_are_no_commit_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptCacheError, match="is damaged"):
        parse_commit(data, MANIFEST, "build", FIRST, "here")


def test_a_later_view_group_has_no_digests() -> None:
    assert "samples/digest" in commit_of(FIRST).shards
    assert "samples/digest" not in commit_of(LAST).shards


def test_invalid_rows_of_another_tile_are_not_committed() -> None:
    with pytest.raises(ValueError, match="not ascending rows of the tile"):
        commit_of(FIRST, (8,))
