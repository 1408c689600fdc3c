"""The writer: whole tiles, commits last, leftovers never merged, a seal at the end."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cache_builder.format import (
    ConfigError,
    CorruptCacheError,
    DataError,
    FormatError,
    IncompleteCacheError,
    Manifest,
    open_cache,
    stored_arrays,
    writer,
)
from cache_builder.format.codecs import Fields
from cache_builder.format.layout import Tile, tile_arrays, tiles
from cache_builder.format.owned import block_lease_key
from cache_builder.format.root import read_manifest
from tests.caches import synthetic_logits, synthetic_manifest, synthetic_names, write_synthetic_cache
from tests.format.conftest import Written
from tests.format.damage import contents


def tile_columns(written: Written, tile: Tile) -> Fields:
    block = written.logits[tile.view_start : tile.view_stop, tile.row_start : tile.row_stop]
    flat = open_cache(written.path, allow_partial=True).codec.encode(block.reshape(-1, block.shape[-1]))
    return {name: column.reshape(*block.shape[:2], *column.shape[1:]) for name, column in flat.items()}


def rewrite(written: Written, out: writer.CacheWriter, tile: Tile) -> None:
    digests = np.arange(tile.row_start, tile.row_stop, dtype=np.uint64)
    out.write_tile(tile, tile_columns(written, tile), digests)


class TestSampleTable:
    def test_duplicates_are_named(self) -> None:
        with pytest.raises(DataError, match=r"'b.png' occurs more than once"):
            writer.SampleTable.from_ids(["a.png", "b.png", "b.png"], None)

    @pytest.mark.parametrize(("sample_id", "problem"), [("", "is empty"), ("\udcff.png", "UTF-8")])
    def test_what_cannot_be_a_key_is_named(self, sample_id: str, problem: str) -> None:
        with pytest.raises(DataError, match=problem):
            writer.SampleTable.from_ids(["a", sample_id], None)

    @pytest.mark.parametrize("labels", [[0], [0, 1, 2], [0, -2], [0, 2**31]])
    def test_labels_are_one_per_sample_and_in_range(self, labels: list[int]) -> None:
        with pytest.raises(DataError, match="labels"):
            writer.SampleTable.from_ids(["a", "b"], np.array(labels))

    def test_no_labels_are_minus_one(self) -> None:
        table = writer.SampleTable.from_ids(["a", "b"], None)
        assert table.labels.tolist() == [-1, -1]
        assert table.labels.dtype == np.int32


class TestCreate:
    def test_what_is_in_the_way_is_not_touched(self, tail_cache: Written) -> None:
        before = contents(tail_cache.path)
        with pytest.raises(ConfigError, match="already exists"):
            write_synthetic_cache(tail_cache.path, tail_cache.logits)
        assert contents(tail_cache.path) == before

    def test_a_failed_creation_leaves_nothing(self, tmp_path: Path) -> None:
        manifest, arrays = self.parts()
        arrays["samples/label"] = np.zeros(100, np.int32)
        with pytest.raises(ConfigError, match="digests"):
            writer.create(tmp_path / "cache.zarr", manifest, arrays)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("path", "wrong"),
        [
            ("codec/logits/mean", np.zeros(41, np.float32)),
            ("codec/logits/basis", np.zeros((8, 40), np.float64)),
            ("samples/id_offsets", np.zeros(100, np.int64)),
            ("probe/pixels", np.zeros((2, 3, 8, 8), np.uint8)),
        ],
    )
    def test_arrays_that_do_not_fit_the_manifest(
        self, path: str, wrong: NDArray[np.generic], tmp_path: Path
    ) -> None:
        manifest, arrays = self.parts()
        with pytest.raises(ConfigError, match=f"header array {path} is"):
            writer.create(tmp_path / "cache.zarr", manifest, arrays | {path: wrong})

    def test_a_chunk_that_cannot_be_compressed_is_refused_before_the_build(self, tmp_path: Path) -> None:
        manifest, arrays = self.parts(classes=70000, top_k=70000, tile_rows=8192)
        with pytest.raises(ConfigError, match="fewer than 8192 rows per tile"):
            writer.create(tmp_path / "cache.zarr", manifest, arrays)

    def test_an_empty_folder_is_no_obstacle(self, tmp_path: Path) -> None:
        manifest, arrays = self.parts()
        (tmp_path / "cache.zarr").mkdir()
        writer.create(tmp_path / "cache.zarr", manifest, arrays)
        assert read_manifest(tmp_path / "cache.zarr") == manifest

    @staticmethod
    def parts(**settings: int) -> tuple[Manifest, dict[str, NDArray[np.generic]]]:
        manifest = synthetic_manifest(**settings)
        rank, classes = manifest.codec.tail_rank, manifest.classes
        ids = [f"{i}.png" for i in range(manifest.data.samples)]
        arrays = (
            writer.SampleTable.from_ids(ids, None).arrays()
            | synthetic_names(manifest).arrays()
            | {
                "codec/logits/mean": np.zeros(classes, np.float32),
                "codec/logits/basis": np.zeros((rank, classes), np.float32),
                "probe/pixels": np.zeros((1, 3, 8, 8), np.uint8),
            }
        )
        return manifest.model_copy(update={"digests": writer.header_digests(arrays)}), arrays


class TestTiles:
    @pytest.mark.parametrize("garbage", [b"", b"half a shard"])
    def test_half_written_shards_of_a_dead_writer_are_replaced(
        self, tail_cache: Written, garbage: bytes
    ) -> None:
        before = contents(tail_cache.path)
        manifest = open_cache(tail_cache.path).manifest
        out = writer.CacheWriter(tail_cache.path, manifest)
        for tile in tiles(manifest):
            (tail_cache.path / tile.key).unlink()
            for spec in tile_arrays(manifest, tile):
                (tail_cache.path / spec.shard_key(tile)).write_bytes(garbage)
            rewrite(tail_cache, out, tile)
        out.finish()
        assert contents(tail_cache.path) == before

    def test_the_same_tiles_in_another_order_give_the_same_cache(self, tail_cache: Written) -> None:
        before = contents(tail_cache.path)
        manifest = open_cache(tail_cache.path).manifest
        out = writer.CacheWriter(tail_cache.path, manifest)
        for tile in reversed(list(tiles(manifest))):
            rewrite(tail_cache, out, tile)
        assert out.finish().cache_id == manifest.cache_id
        assert contents(tail_cache.path) == before

    def test_a_rewritten_tile_unseals_the_cache_until_it_is_finished_again(self, tail_cache: Written) -> None:
        manifest = open_cache(tail_cache.path).manifest
        out = writer.CacheWriter(tail_cache.path, manifest)
        rewrite(tail_cache, out, next(tiles(manifest)))
        with pytest.raises(IncompleteCacheError, match="it is not sealed"):
            open_cache(tail_cache.path)
        out.finish()
        assert open_cache(tail_cache.path).manifest.cache_id == manifest.cache_id

    def test_a_reader_is_told_of_what_happens_to_its_cache(self, tail_cache: Written) -> None:
        cache = open_cache(tail_cache.path)
        out = writer.CacheWriter(tail_cache.path, cache.manifest)
        tile = next(tiles(cache.manifest))
        out.withdraw(tile)
        (tail_cache.path / "records/logits/lse/c/0/0").write_bytes(b"half")
        with pytest.raises(IncompleteCacheError, match="was changed since it was opened"):
            cache.read_page(0)
        rewrite(tail_cache, out, tile)
        out.finish()
        assert open_cache(tail_cache.path).read_page(0).tobytes() == cache.read_page(0).tobytes()

    def test_a_cache_that_is_unsealed_while_it_is_opened_is_not_called_damaged(
        self, tail_cache: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manifest = open_cache(tail_cache.path).manifest
        out = writer.CacheWriter(tail_cache.path, manifest)
        read_index = stored_arrays.read_index

        def unsealed_first(*arguments: object) -> object:
            out.unseal()
            return read_index(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(stored_arrays, "read_index", unsealed_first)
        with pytest.raises(
            IncompleteCacheError, match="it is not sealed; where a build or a repair is at work"
        ):
            open_cache(tail_cache.path)

    def test_a_damaged_tile_is_repaired_by_deleting_its_commit(self, tail_cache: Written) -> None:
        before = contents(tail_cache.path)
        manifest = open_cache(tail_cache.path).manifest
        tile = next(tiles(manifest))
        (tail_cache.path / "records/logits/lse/c/0/0").write_bytes(b"damaged")
        (tail_cache.path / tile.key).unlink()
        out = writer.CacheWriter(tail_cache.path, manifest)
        assert not out.is_committed(tile)
        rewrite(tail_cache, out, tile)
        with pytest.raises(IncompleteCacheError, match="it is not sealed"):
            open_cache(tail_cache.path)
        out.finish()
        assert contents(tail_cache.path) == before

    def test_a_tile_is_real_when_its_commit_exists(self, tmp_path: Path) -> None:
        manifest = write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(3, 100, 40), commit=2)
        out = writer.CacheWriter(tmp_path / "c.zarr", manifest)
        assert [out.is_committed(tile) for tile in tiles(manifest)] == [True, True, *[False] * 6]

    def test_no_chunk_is_left_out_because_it_is_zero(self, tmp_path: Path) -> None:
        logits = np.zeros((2, 4, 5), np.float32)
        path = tmp_path / "zeros.zarr"
        manifest = write_synthetic_cache(path, logits, top_k=5, tile_views=2, tile_rows=4)
        absent = b"\xff" * 16  # how a shard's index says that a chunk was not written
        for tile in tiles(manifest):
            for spec in tile_arrays(manifest, tile):
                assert absent not in (path / spec.shard_key(tile)).read_bytes()
        cache = open_cache(path)
        np.testing.assert_array_equal(cache.decode(cache.read_page(1)), 0)

    @pytest.mark.parametrize(
        "change",
        [
            lambda fields: fields.pop("lse"),
            lambda fields: fields.update(lse=fields["lse"][:1]),
            lambda fields: fields.update(lse=fields["lse"].astype(np.float64)),
            lambda fields: fields.update(topk_index=fields["topk_index"][..., :1]),
        ],
        ids=["missing", "views", "type", "items"],
    )
    def test_columns_that_do_not_fit_write_nothing(
        self, tail_cache: Written, change: Callable[[Fields], object]
    ) -> None:
        before = contents(tail_cache.path)
        manifest = open_cache(tail_cache.path).manifest
        tile = next(tiles(manifest))
        fields = tile_columns(tail_cache, tile)
        change(fields)
        with pytest.raises(ValueError, match=r"views 0-1, rows 0-7: got .* expected"):
            writer.CacheWriter(tail_cache.path, manifest).write_tile(tile, fields, np.zeros(8, np.uint64))
        assert contents(tail_cache.path) == before


class TestFinish:
    def test_a_missing_tile_is_named(self, tmp_path: Path) -> None:
        manifest = write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(3, 100, 40), commit=7)
        with pytest.raises(IncompleteCacheError, match=r"1 tile\(s\), the first is views 2-2, rows 96-99"):
            writer.CacheWriter(tmp_path / "c.zarr", manifest).finish()

    def test_a_missing_shard_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "c.zarr"
        write_synthetic_cache(path, synthetic_logits(3, 100, 40))
        (path / "records/logits/lse/c/1/2").unlink()
        manifest = read_manifest(path)
        assert manifest is not None
        with pytest.raises(CorruptCacheError, match=r"records/logits/lse/c/1/2 .* is missing"):
            writer.CacheWriter(path, manifest).finish()

    def test_invalid_rows_are_collected_over_all_tiles(self, tail_cache: Written) -> None:
        manifest = open_cache(tail_cache.path).manifest
        out = writer.CacheWriter(tail_cache.path, manifest)
        for tile in tiles(manifest):
            invalid = [row for row in (3, 9) if row in tile.rows]
            fields = tile_columns(tail_cache, tile)
            for row in invalid:
                for name, column in out.codec.invalid(len(tile.views)).items():
                    fields[name][:, row - tile.row_start] = column
            out.write_tile(tile, fields, np.arange(len(tile.rows), dtype=np.uint64), invalid)
        assert out.finish().invalid_rows == (3, 9)
        cache = open_cache(tail_cache.path)
        logits = cache.decode(cache.read_page(0))
        np.testing.assert_array_equal(np.isnan(logits).all(axis=1), np.isin(np.arange(12), [3, 9]))
        np.testing.assert_array_equal(np.isnan(logits).any(axis=1), np.isin(np.arange(12), [3, 9]))

    def test_a_commit_that_somebody_changed_meanwhile_is_not_sealed_over(self, tail_cache: Written) -> None:
        manifest = open_cache(tail_cache.path).manifest
        out = writer.CacheWriter(tail_cache.path, manifest)
        for tile in tiles(manifest):
            rewrite(tail_cache, out, tile)
        (tail_cache.path / tile.key).write_bytes(b"{}")
        with pytest.raises(CorruptCacheError):
            out.finish()

    def test_leases_of_the_dead_are_swept_away(self, tail_cache: Written) -> None:
        lease = tail_cache.path / block_lease_key(3, 1)
        lease.parent.mkdir()
        lease.write_bytes(b"{}")
        writer.CacheWriter(tail_cache.path, open_cache(tail_cache.path).manifest).sweep()
        assert not lease.parent.exists()

    def test_finishing_twice_changes_nothing(self, tail_cache: Written) -> None:
        before = contents(tail_cache.path)
        writer.CacheWriter(tail_cache.path, open_cache(tail_cache.path).manifest).finish()
        assert contents(tail_cache.path) == before


class TestOpening:
    def test_a_writer_of_another_build_is_refused(self, tail_cache: Written) -> None:
        manifest = open_cache(tail_cache.path).manifest
        other = manifest.model_copy(update={"environment": {"torch": "other"}})
        with pytest.raises(ConfigError, match="another manifest"):
            writer.CacheWriter(tail_cache.path, other)

    def test_where_there_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="no store"):
            writer.CacheWriter(tmp_path / "nothing", synthetic_manifest())

    def test_leftovers_of_dead_writers_are_swept(self, tail_cache: Written) -> None:
        before = contents(tail_cache.path)
        unique = uuid.uuid4().hex
        partial = tail_cache.path / "records/logits/lse/c/0" / f"0.{unique}.partial"
        partial.write_bytes(b"x")
        creating = tail_cache.path.with_name(f".{tail_cache.path.name}.{unique}.creating")
        creating.mkdir()
        writer.CacheWriter(tail_cache.path, open_cache(tail_cache.path).manifest).sweep()
        assert not partial.exists()
        assert not creating.exists()
        assert contents(tail_cache.path) == before


def _write_alternate_tiles(path: Path, logits: NDArray[np.float32], first: int) -> None:
    written = Written(path, logits)
    manifest = open_cache(path, allow_partial=True).manifest
    out = writer.CacheWriter(path, manifest)
    for tile in list(tiles(manifest))[first::2]:
        rewrite(written, out, tile)


def test_two_processes_may_write_different_tiles_at_once(tmp_path: Path) -> None:
    logits = synthetic_logits(3, 100, 40)
    alone, shared = tmp_path / "alone.zarr", tmp_path / "shared.zarr"
    write_synthetic_cache(alone, logits)
    write_synthetic_cache(shared, logits, commit=0)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_alternate_tiles, args=(shared, logits, i)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    manifest = read_manifest(shared)
    assert manifest is not None
    writer.CacheWriter(shared, manifest).finish()
    assert contents(shared) == contents(alone)


def test_an_object_store_holds_the_same_cache(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    logits = synthetic_logits(3, 12, 10)
    settings = {"top_k": 3, "rank": 3, "wide": 1, "tile_views": 2, "tile_rows": 8}
    local = write_synthetic_cache(tmp_path / "c.zarr", logits, **settings)
    remote = write_synthetic_cache(url, logits, **settings)
    assert remote.cache_id == local.cache_id
    assert contents(url) == contents(tmp_path / "c.zarr")


def test_a_copied_cache_is_the_same_cache(tail_cache: Written, tmp_path: Path) -> None:
    shutil.copytree(tail_cache.path, tmp_path / "elsewhere")
    assert contents(tmp_path / "elsewhere") == contents(tail_cache.path)


def test_the_manifest_is_stored_as_its_json(tail_cache: Written) -> None:
    root = json.loads((tail_cache.path / "zarr.json").read_text())
    manifest = open_cache(tail_cache.path).manifest
    assert root["attributes"]["kdcache"] == manifest.model_dump(mode="json")
