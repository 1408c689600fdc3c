"""Caches written by earlier releases read as they did then. The folders under ``golden/`` are never edited.

Made once, with zarr 3.1.6: ``python -m tests.format.make_golden tests/format/golden/v3`` (v1 and v2 by their
own releases). A release that changes what stored bytes mean adds ``golden/v4`` and keeps these passing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xxhash
import zarr

from cache_builder.format import Cache, open_cache
from cache_builder.format.layout import Tile, tile_arrays
from tests.format import third_party_reader

GOLDEN = Path(__file__).parent / "golden"
CACHE_IDS = {
    "v1/tail.zarr": "b5d5c10dd47dab1c5617984b581e53e1",
    "v1/exact.zarr": "65405a47313d92ebc8262b75e486b292",
    "v2/tail.zarr": "1e0d8079488b674b35ec32c1fa4b10b6",
    "v2/exact.zarr": "2e11f258835a50aab94a11d1cb00ce8d",
    "v2/upright.zarr": "90283157d999049b1ec284ccb20e0979",
    "v2/own-names.zarr": "054f7ddf3a25414daa748cc17f5fecdb",
    "v2/sketch.zarr": "4cbfe137fcb1ee077bdef0d7f38620aa",
    "v2/sketch-16.zarr": "87fb22dac4c297d37fceef6451bc4b9f",
    "v2/masked.zarr": "a1dae0b12ece93980494bb2b888770be",
    "v3/exact.zarr": "199651d06e9921234e887570c1fb1320",
    "v3/joint.zarr": "34ae4dc3ae871f545f33b3d0da11e0ce",
    "v3/masked.zarr": "0fae6ee790b65032076cb48fb569238e",
    "v3/own-names.zarr": "c4d1aae53d81dd8d9f19c479ba649b13",
    "v3/sketch-16.zarr": "fba25d87f82b6be81b901c82fd3bfe57",
    "v3/sketch.zarr": "aef82524b8fcab1d803fb22486fafc21",
    "v3/tail.zarr": "bcb493c6da281033f415db05ccae9af0",
    "v3/upright.zarr": "d82b1b2f65a1b05c3178b1b2ee00a083",
}


@pytest.mark.parametrize("name", CACHE_IDS)
def test_it_opens_and_has_its_id(name: str) -> None:
    cache = open_cache(GOLDEN / name)
    assert cache.manifest.cache_id == CACHE_IDS[name]
    assert list(cache.damaged_shards()) == []


@pytest.mark.parametrize("name", CACHE_IDS)
def test_it_decodes_to_the_logits_of_then(name: str) -> None:
    cache = open_cache(GOLDEN / name)
    expected = np.load((GOLDEN / name).with_suffix(".npy"))
    for view, logits in enumerate(expected):
        decoded = cache.decode(cache.read_page(view))
        np.testing.assert_allclose(decoded, logits, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            third_party_reader.read_logits(GOLDEN / name, view), logits, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", CACHE_IDS)
def test_its_samples_are_the_same(name: str) -> None:
    cache = open_cache(GOLDEN / name)
    assert list(cache.ids) == ["ø/0.png", "ø/1.png", "ø/2.png"]
    assert cache.rows_for(["ø/2.png"]).tolist() == [2]
    assert cache.labels.tolist() == [-1, 0, 1]
    assert cache.digests.tolist() == [2**63, 0, 2**63 + 2]
    assert cache.manifest.invalid_rows == (1,)
    assert np.isnan(cache.decode(cache.read_page(0))[1]).all()
    assert cache.probe_pixels[0, 2, 7, 7] == 191


@pytest.mark.parametrize("name", CACHE_IDS)
def test_its_pictures_are_decoded_by_the_rule_of_then(name: str) -> None:
    assert open_cache(GOLDEN / name).manifest.input.decoding == (2 if "upright" in name else 1)


def test_the_data_sets_own_names_are_kept_where_there_are_any() -> None:
    own = {name: open_cache(GOLDEN / name).names.own for name in CACHE_IDS}
    assert own.pop("v2/own-names.zarr") == ("good", "bäd")
    assert own.pop("v3/own-names.zarr") == ("good", "bäd")
    assert set(own.values()) == {None}


def test_the_tail_cache_has_every_kind_of_field() -> None:
    cache = open_cache(GOLDEN / "v1/tail.zarr")
    fields = cache.manifest.codec.layout.unpack(cache.read_page(2))
    assert {name: column.dtype.str for name, column in fields.items()} == {
        "topk_max": "<f4",
        "lse": "<f4",
        "topk_span": "<f2",
        "tail_coef_wide": "<i2",
        "topk_index": "<u2",
        "topk_value": "|u1",
        "tail_coef": "|i1",
    }
    assert fields["topk_index"][0, 0] == 256


def test_they_are_small() -> None:
    size = sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file())
    assert size < 30_000 * len(list(GOLDEN.glob("*/*.zarr")))


def test_the_sketches_have_every_kind_of_field() -> None:
    found: dict[str, set[str]] = {}
    for name in ("v2/sketch.zarr", "v2/sketch-16.zarr"):
        cache = open_cache(GOLDEN / name)
        for field, column in cache.manifest.codec.layout.unpack(cache.read_page(2)).items():
            found.setdefault(field, set()).add(column.dtype.str)
    assert found == {
        "lse_above": {"<f2"},
        "tail_coef_wide": {"<i2"},
        "topk_index": {"<u2"},
        "topk_residual": {"|i1", "<i2"},
        "tail_coef": {"|i1"},
        "tail_coef_packed": {"|u1"},
    }


def test_the_joint_cache_has_coded_blocks_and_one_that_is_stored_as_it_is() -> None:
    stored = zarr.open_array(GOLDEN / "v3/joint.zarr/records/logits/sample", mode="r")
    assert [stored[group, row].tobytes()[0] for group in (0, 1) for row in (0, 2)] == [0, 1, 0, 1]


@pytest.mark.parametrize("name", [name for name in CACHE_IDS if name.startswith("v2/")])
def test_version_3_has_the_record_bytes_of_version_2(name: str) -> None:
    """The same logits and settings, written by two releases: equal objects under other paths."""
    older, newer = open_cache(GOLDEN / name), open_cache(GOLDEN / name.replace("v2/", "v3/"))
    assert older.header_arrays().keys() == newer.header_arrays().keys()
    for path, array in older.header_arrays().items():
        np.testing.assert_array_equal(array, newer.header_arrays()[path])
    for ours, theirs in zip(older.tiles, newer.tiles, strict=True):
        assert digests_of(older, ours) == digests_of(newer, theirs)


def digests_of(cache: Cache, tile: Tile) -> list[tuple[int, str]]:
    """Size and digest of each object of a tile, in the order of its arrays."""
    keys = [spec.shard_key(tile) for spec in tile_arrays(cache.manifest, tile)]
    objects = [(Path(cache.location) / key).read_bytes() for key in keys]
    return [(len(data), xxhash.xxh64_hexdigest(data)) for data in objects]
