"""The reader: pages in order, errors that say where, never a number from a chunk that is not there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.abc.store import Store
from zarr.storage import WrapperStore

from cache_builder.format import (
    CorruptCacheError,
    DataError,
    FormatError,
    IncompleteCacheError,
    UnknownSampleError,
    open_cache,
)
from cache_builder.format.commits import INDEX_KEY
from cache_builder.format.root import read_manifest
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.conftest import Written
from tests.format.damage import changed, contents, flipped


@pytest.fixture(params=["tail_cache", "sketch_cache", "exact_cache"])
def written(request: pytest.FixtureRequest) -> Written:
    cache: Written = request.getfixturevalue(request.param)
    return cache


class TestReading:
    def test_pages_hold_the_encoded_logits_row_by_row(self, written: Written) -> None:
        cache = open_cache(written.path)
        for view, logits in enumerate(written.logits):
            page = cache.read_page(view)
            assert page.shape == (len(logits), cache.record_bytes)
            assert page.dtype == np.uint8
            expected = cache.codec.pack(cache.codec.encode(logits))
            np.testing.assert_array_equal(page, expected)

    def test_k_equal_c_decodes_within_half_a_step(self, exact_cache: Written) -> None:
        cache = open_cache(exact_cache.path)
        for view, logits in enumerate(exact_cache.logits):
            page = cache.read_page(view)
            span = cache.manifest.codec.layout.unpack(page)["topk_span"].astype(np.float64)
            assert (np.abs(cache.decode(page) - logits) <= span[:, None] / 510 + 1e-5).all()

    @pytest.mark.parametrize(
        ("tile_views", "tile_rows"), [(1, 1), (3, 12), (8, 4096), (2, 5)], ids=lambda size: str(size)
    )
    def test_tiling_changes_nothing_that_is_read(
        self, tail_cache: Written, tile_views: int, tile_rows: int, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.zarr"
        write_synthetic_cache(
            other, tail_cache.logits, top_k=3, rank=3, wide=1, tile_views=tile_views, tile_rows=tile_rows
        )
        ours, theirs = open_cache(tail_cache.path), open_cache(other)
        for view in range(3):
            np.testing.assert_array_equal(theirs.read_page(view), ours.read_page(view))
        np.testing.assert_array_equal(theirs.digests, ours.digests)

    def test_samples_are_found_by_id(self, tail_cache: Written) -> None:
        cache = open_cache(tail_cache.path)
        assert cache.ids[3] == "dir/img_00003.png"
        assert cache.rows_for(["dir/img_00011.png", "dir/img_00000.png"]).tolist() == [11, 0]
        with pytest.raises(UnknownSampleError, match="nobody"):
            cache.rows_for(["nobody"])

    def test_what_belongs_to_the_rows(self, tail_cache: Written) -> None:
        cache = open_cache(tail_cache.path)
        np.testing.assert_array_equal(cache.labels, np.arange(12) % 10)
        np.testing.assert_array_equal(cache.digests, np.arange(12))
        assert cache.digests.dtype == np.uint64
        assert cache.probe_pixels.shape == (1, 3, 8, 8)
        assert cache.codec.basis.shape == (3, 10)

    def test_header_arrays_are_the_ones_of_the_manifest(self, tail_cache: Written) -> None:
        cache = open_cache(tail_cache.path)
        for path in cache.manifest.digests:
            assert cache.header_array(path).ndim >= 1
        with pytest.raises(FormatError, match="no array 'records/logits/lse'"):
            cache.header_array("records/logits/lse")

    @pytest.mark.parametrize("view", [-1, 3])
    def test_a_view_that_does_not_exist(self, tail_cache: Written, view: int) -> None:
        with pytest.raises(DataError, match=f"view {view} is out of range: the cache has views 0 to 2"):
            open_cache(tail_cache.path).read_page(view)


class TestOpening:
    def test_nothing_there(self, tmp_path: Path) -> None:
        assert read_manifest(tmp_path / "nothing") is None
        with pytest.raises(FormatError, match="no cache here"):
            open_cache(tmp_path / "nothing")

    def test_another_zarr_store(self, tmp_path: Path) -> None:
        zarr.create_group(tmp_path / "group")
        zarr.create_array(tmp_path / "array", shape=(2,), dtype="i4")
        for name in ("group", "array"):
            with pytest.raises(FormatError, match="not a kdcache"):
                open_cache(tmp_path / name)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"zarr_format": 3}'])
    def test_a_root_that_is_no_group(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "zarr.json").write_text(text)
        with pytest.raises(CorruptCacheError, match=r"zarr.json is damaged"):
            open_cache(tmp_path)

    @pytest.mark.parametrize("attributes", [None, [], {}, "kdcache", 7])
    def test_attributes_without_a_manifest(self, attributes: Any, tmp_path: Path) -> None:
        root = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (tmp_path / "zarr.json").write_text(json.dumps(root))
        with pytest.raises(FormatError, match="not a kdcache"):
            open_cache(tmp_path)

    def test_missing_tiles_are_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "c.zarr"
        write_synthetic_cache(path, synthetic_logits(3, 100, 40), commit=5)
        with pytest.raises(IncompleteCacheError, match="3 of 8 tiles are missing"):
            open_cache(path)

    def test_an_incomplete_cache_gives_its_whole_views(self, tmp_path: Path) -> None:
        path, logits = tmp_path / "c.zarr", synthetic_logits(3, 100, 40)
        write_synthetic_cache(tmp_path / "whole.zarr", logits)
        write_synthetic_cache(path, logits, commit=5)
        cache, whole = open_cache(path, allow_partial=True), open_cache(tmp_path / "whole.zarr")
        for view in (0, 1):
            np.testing.assert_array_equal(cache.read_page(view), whole.read_page(view))
        np.testing.assert_array_equal(cache.digests, whole.digests)
        with pytest.raises(IncompleteCacheError, match=r"view 2 lacks 3 tile\(s\), the first is views 2-2"):
            cache.read_page(2)

    def test_digests_of_an_incomplete_first_group_are_refused(self, tmp_path: Path) -> None:
        write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(3, 100, 40), commit=1)
        with pytest.raises(IncompleteCacheError, match=r"samples/digest lacks 3 tile\(s\)"):
            _ = open_cache(tmp_path / "c.zarr", allow_partial=True).digests

    def test_a_cache_that_was_never_sealed(self, tmp_path: Path) -> None:
        write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(3, 100, 40), commit=8)
        with pytest.raises(IncompleteCacheError, match="it is not sealed"):
            open_cache(tmp_path / "c.zarr")
        assert open_cache(tmp_path / "c.zarr", allow_partial=True).read_page(2).shape[0] == 100


class FailingStore(WrapperStore[Store]):
    """A store whose disk answers for metadata, and not for data."""

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        if "/c/" in key:
            raise OSError(errno.EIO, os.strerror(errno.EIO), key)
        return await super().get(key, *args, **kwargs)


class TestDamage:
    """One named kind each; test_damage.py flips bits everywhere."""

    @pytest.mark.parametrize("data", [None, b"", b"short"], ids=["missing", "empty", "truncated"])
    def test_a_shard_that_is_not_whole_is_named(self, tail_cache: Written, data: bytes | None) -> None:
        shard = tail_cache.path / "records/logits/topk_value/c/0/1/0"
        shard.unlink() if data is None else shard.write_bytes(data)
        cache = open_cache(tail_cache.path)
        with pytest.raises(
            CorruptCacheError, match=r"records/logits/topk_value/c/0/1/0 \(views 0-1, rows 8-11\)"
        ):
            cache.read_page(1)
        assert list(cache.damaged_shards()) == ["records/logits/topk_value/c/0/1/0 (views 0-1, rows 8-11)"]
        assert cache.read_page(2).shape == (12, cache.record_bytes), "the other view group is untouched"

    def test_a_flipped_bit_names_the_tile(self, tail_cache: Written) -> None:
        shard = tail_cache.path / "records/logits/lse/c/1/0"
        shard.write_bytes(flipped(shard.read_bytes(), 40))
        cache = open_cache(tail_cache.path)
        with pytest.raises(
            CorruptCacheError, match=r"records/logits/lse/c/1/0 \(views 2-2, rows 0-7\) fails"
        ) as caught:
            cache.read_page(2)
        assert "--repair" in str(caught.value)
        assert "delete" not in str(caught.value)

    def test_a_damaged_digest_names_the_tile(self, tail_cache: Written) -> None:
        chunk = tail_cache.path / "samples/digest/c/1"
        chunk.write_bytes(flipped(chunk.read_bytes(), 40))
        with pytest.raises(CorruptCacheError, match=r"samples/digest/c/1 \(views 0-1, rows 8-11\)"):
            _ = open_cache(tail_cache.path).digests

    @pytest.mark.parametrize(
        "path", ["codec/logits/mean", "codec/logits/basis", "samples/id_offsets", "probe/pixels"]
    )
    def test_a_missing_header_chunk_is_not_read_as_zeros(self, tail_cache: Written, path: str) -> None:
        shutil.rmtree(tail_cache.path / path / "c")
        with pytest.raises(CorruptCacheError, match=f"array {path} does not match its digest"):
            open_cache(tail_cache.path).header_array(path)

    def test_a_header_array_of_another_cache_is_refused(self, tail_cache: Written, tmp_path: Path) -> None:
        other = tmp_path / "other.zarr"
        write_synthetic_cache(other, -tail_cache.logits, top_k=3, rank=3, wide=1, tile_views=2, tile_rows=8)
        shutil.rmtree(tail_cache.path / "codec/logits/basis")
        shutil.copytree(other / "codec/logits/basis", tail_cache.path / "codec/logits/basis")
        with pytest.raises(CorruptCacheError, match="codec/logits/basis does not match"):
            _ = open_cache(tail_cache.path).codec

    def test_a_tile_of_another_build_is_refused(self, tail_cache: Written, tmp_path: Path) -> None:
        other = tmp_path / "other.zarr"
        write_synthetic_cache(other, -tail_cache.logits, top_k=3, rank=3, wide=1, tile_views=2, tile_rows=8)
        shutil.copy(other / INDEX_KEY, tail_cache.path / INDEX_KEY)
        with pytest.raises(CorruptCacheError, match="of another build"):
            open_cache(tail_cache.path)

    @pytest.mark.parametrize("data", [None, b"", b"{}", b'{"commits": []}', b'{"commits": 3}', b"[]"])
    def test_an_index_that_is_none_is_refused(self, tail_cache: Written, data: bytes | None) -> None:
        before = contents(tail_cache.path)
        with (
            changed(tail_cache.path / INDEX_KEY, data),
            pytest.raises(CorruptCacheError, match=r"commits/index is damaged: .* with --repair"),
        ):
            open_cache(tail_cache.path)
        assert contents(tail_cache.path) == before

    def test_a_sealed_cache_needs_no_other_commit(self, tail_cache: Written) -> None:
        before = contents(tail_cache.path)
        for commit in (tail_cache.path / "commits").glob("g*.json"):
            commit.unlink()
        assert contents(tail_cache.path) == before

    def test_an_edited_manifest_is_refused(self, tail_cache: Written) -> None:
        root = json.loads((tail_cache.path / "zarr.json").read_text())
        root["attributes"]["kdcache"]["views"]["seed"] = 25
        (tail_cache.path / "zarr.json").write_text(json.dumps(root))
        with pytest.raises(CorruptCacheError, match="of another build"):
            open_cache(tail_cache.path, allow_partial=True)

    def test_an_edited_result_is_refused(self, tail_cache: Written) -> None:
        root = json.loads((tail_cache.path / "zarr.json").read_text())
        root["attributes"]["kdcache"]["invalid_rows"] = [1]
        (tail_cache.path / "zarr.json").write_text(json.dumps(root))
        with pytest.raises(CorruptCacheError, match="do not give cache_id"):
            open_cache(tail_cache.path)

    def test_a_disk_that_does_not_answer_is_not_called_corrupt(self, tail_cache: Written) -> None:
        cache = open_cache(tail_cache.path)
        cache._store = FailingStore(cache._store)
        with pytest.raises(OSError, match="Input/output error"):
            cache.read_page(0)

    def test_reformatted_json_is_harmless(self, tail_cache: Written) -> None:
        before = contents(tail_cache.path)
        for file in tail_cache.path.rglob("zarr.json"):
            file.write_text(json.dumps(json.loads(file.read_text()), indent=7, sort_keys=True))
        assert contents(tail_cache.path) == before
