"""Geometry: tiles cover every record once, keys are the ones Zarr writes, fields fill the record."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_builder.format.codecs.sketched import index_bits
from cache_builder.format.layout import (
    HEADER_CHUNK_BYTES,
    Blocks,
    digest_array,
    header_specs,
    record_arrays,
    tile_arrays,
    tiles,
)
from tests.caches import synthetic_manifest
from tests.format.conftest import Written


@pytest.mark.parametrize(
    ("classes", "bits"), [(2, 8), (256, 8), (257, 16), (65536, 16), (65537, 32), (2**24, 32)]
)
def test_class_ids_use_the_smallest_type(classes: int, bits: int) -> None:
    assert index_bits(classes) == bits
    assert classes - 1 < 2**bits


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 9), st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_tiles_cover_every_record_exactly_once(views: int, rows: int, height: int, width: int) -> None:
    manifest = synthetic_manifest(views=views, rows=rows, tile_views=height, tile_rows=width)
    covered = np.zeros((views, rows), int)
    everything = list(tiles(manifest))
    for tile in everything:
        covered[tile.view_start : tile.view_stop, tile.row_start : tile.row_stop] += 1
        assert tile.count == len(tile.views) * len(tile.rows) > 0
    assert (covered == 1).all()
    assert len({tile.key for tile in everything}) == len(everything)
    groups = [tile.group for tile in everything]
    assert groups == sorted(groups), "the first views of every row exist first"


@given(st.integers(2, 70000), st.integers(1, 20), st.integers(0, 20), st.integers(0, 20))
@settings(deadline=None, max_examples=60)
def test_fields_fill_the_record_without_gaps(classes: int, top_k: int, rank: int, wide: int) -> None:
    top_k, rank = min(top_k, classes - 1), min(rank, classes)
    wide = min(wide, rank)
    layout = synthetic_manifest(classes=classes, top_k=top_k, rank=max(rank, 1), wide=wide).codec.layout
    offset = 0
    for field in layout.fields:
        assert field.offset == offset == layout.dtype.fields[field.name][1]  # type: ignore[index]
        offset += field.nbytes
    assert offset == layout.record_bytes == layout.dtype.itemsize


def test_absent_fields_are_left_out() -> None:
    def names(**settings: int) -> list[str]:
        return [field.name for field in synthetic_manifest(**settings).codec.layout.fields]

    stored = ["topk_index", "topk_value"]
    scalars = ["topk_max", "lse", "topk_span"]
    assert names(wide=2) == [*scalars, "tail_coef_wide", *stored, "tail_coef"]
    assert names(wide=0) == [*scalars, *stored, "tail_coef"]
    assert names(rank=2, wide=2) == [*scalars, "tail_coef_wide", *stored]
    assert names(top_k=40) == [*scalars, *stored]


def test_the_record_of_the_specification() -> None:
    layout = synthetic_manifest(classes=1000, top_k=10, rank=64, wide=1).codec.layout
    assert [(f.name, f.dtype.str, f.count, f.offset) for f in layout.fields] == [
        ("topk_max", "<f4", 1, 0),
        ("lse", "<f4", 1, 4),
        ("topk_span", "<f2", 1, 8),
        ("tail_coef_wide", "<i2", 1, 10),
        ("topk_index", "<u2", 10, 12),
        ("topk_value", "|u1", 10, 32),
        ("tail_coef", "|i1", 63, 42),
    ]
    assert layout.record_bytes == 105


def test_shard_keys_are_the_ones_zarr_writes(tail_cache: Written, exact_cache: Written) -> None:
    for written, wide in ((tail_cache, 1), (exact_cache, 0)):
        views, rows, classes = written.logits.shape
        sizes = {"tile_views": 2, "tile_rows": 8} if wide else {"tile_views": 8, "tile_rows": 16}
        manifest = synthetic_manifest(
            views=views, rows=rows, classes=classes, top_k=3 if wide else 7, rank=3, wide=wide, **sizes
        )
        expected = {spec.shard_key(tile) for tile in tiles(manifest) for spec in tile_arrays(manifest, tile)}
        paths = [spec.path for spec in [*record_arrays(manifest), digest_array(manifest)]]
        stored = {
            str(file.relative_to(written.path))
            for path in paths
            for file in (written.path / path / "c").rglob("*")
            if file.is_file()
        }
        assert stored == expected


def test_digests_are_written_with_the_first_view_group_only() -> None:
    manifest = synthetic_manifest(views=3, tile_views=2)
    with_digests = {
        tile.group
        for tile in tiles(manifest)
        if "samples/digest" in {spec.path for spec in tile_arrays(manifest, tile)}
    }
    assert with_digests == {0}


def test_long_header_arrays_are_cut_into_chunks() -> None:
    long = 3 * HEADER_CHUNK_BYTES
    specs = {spec.path: spec for spec in header_specs(synthetic_manifest(), {"samples/id_bytes": long})}
    assert specs["samples/id_bytes"].chunks == (HEADER_CHUNK_BYTES,)
    assert specs["codec/logits/basis"].chunks == specs["codec/logits/basis"].shape


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.data())
def test_blocks_cut_rows_without_rest(samples: int, height: int, data: st.DataObject) -> None:
    blocks = Blocks(samples, height)
    assert [row for block in range(len(blocks)) for row in blocks.rows(block)] == list(range(samples))
    rows = np.array(data.draw(st.lists(st.integers(0, samples - 1))), np.int64)
    parts = list(blocks.split(rows))
    assert sorted(place for _, places in parts for place in places) == list(range(len(rows)))
    assert all(row in blocks.rows(block) for block, places in parts for row in rows[places].tolist())
    met = np.unique(rows // height)
    runs = list(blocks.runs(met))
    assert [block for run in runs for block in blocks.meeting(run)] == met.tolist()
    assert all(a.stop < b.start for a, b in itertools.pairwise(runs))
