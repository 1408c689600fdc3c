"""Caches that the release before built are continued, repaired, extended, merged, verified and served.

``golden_builds/v2``, built once by that release and never edited: ``whole.zarr`` of 96 digits in two
views, and ``begun.zarr``, the same without its last tile, as a build that was killed, or the part
``--rows 0:64``, leaves it.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cache_builder.build.finished import BuildResult
from cache_builder.build.pipeline import build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import BuildProgress
from cache_builder.exchange.extend import ExtendSettings, extend
from cache_builder.exchange.merge import MergeSettings, merge
from cache_builder.format import Cache, ConfigError, open_cache
from cache_builder.format.commits import INDEX_KEY
from cache_builder.format.layout import tile_arrays
from cache_builder.format.root import read_body
from tests.cache_builder.verify.test_run import checked, failed
from trainer import TeacherCache

HERE = Path(__file__).parent / "golden_builds/v2"
DIGITS = tuple("0123456789")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HERE / "whole.zarr", tmp_path / "old.zarr"))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HERE / "begun.zarr", tmp_path / "old.zarr"))


def built(out: Path, **changes: object) -> BuildResult:
    """The command that built them."""
    settings = {
        "teacher": "tests.cache_builder.models:small", "data": "digits", "views": 2, "input_size": 16,
        "batch_size": 16, "workers": 0, "device": "cpu", "tile_rows": 32, "tail_rank": 4, "top_k": 3,
        "seed": 5, "limit": 96, "name": "old", "out": str(out),
    }  # fmt: skip
    with BuildProgress(Console(file=io.StringIO())) as progress:
        return build(BuildSettings.model_validate(settings | changes), progress)


def shards(cache: Cache, block: int) -> list[bytes]:
    """The objects of one tile, in the order of its arrays."""
    tile = cache.tiles[block]
    return [
        (Path(cache.location) / spec.shard_key(tile)).read_bytes()
        for spec in tile_arrays(cache.manifest, tile)
    ]


def same_records(found: Path, blocks: range = range(3)) -> bool:
    """Byte for byte those of the whole one."""
    ours, theirs = open_cache(found, allow_partial=True), open_cache(HERE / "whole.zarr")
    return all(shards(ours, block) == shards(theirs, block) for block in blocks)


def is_of_version_2(path: Path) -> bool:
    body = read_body(path) or {}
    return body["format_version"] == 2 and "codec" in body and not (path / INDEX_KEY).exists()


def test_a_finished_one_is_finished(whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert built(whole).was_finished
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_other_settings_are_named(whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"views\.seed: 5 -> 6"):
        built(whole, seed=6)
    with pytest.raises(ConfigError, match=r"requested\.codec\.tail_rank: 4 -> 5"):
        built(whole, tail_rank=5)


def test_a_begun_one_is_continued_as_what_it_is(begun: Path) -> None:
    manifest = built(begun).manifest
    assert is_of_version_2(begun)
    assert same_records(begun, range(2))
    found, wanted = open_cache(begun), open_cache(HERE / "whole.zarr")
    assert found.manifest.cache_id == manifest.cache_id
    np.testing.assert_allclose(
        found.decode(found.read_page(1)), wanted.decode(wanted.read_page(1)), rtol=1e-3, atol=0.1
    )
    if same_records(begun):  # where this machine computes to the last bit what the one of then did
        assert manifest.cache_id == wanted.manifest.cache_id


def test_a_damaged_one_is_repaired_as_what_it_is(whole: Path) -> None:
    shard = whole / "records/topk_residual/c/0/1/0"
    shard.write_bytes(b"damaged")
    built(whole, repair=True)
    assert is_of_version_2(whole)
    assert same_records(whole, range(1))
    assert list(open_cache(whole).damaged_shards()) == []


def test_extended_it_is_of_version_3_with_the_same_records(whole: Path) -> None:
    before = open_cache(whole)
    pages, labels = [before.read_page(view) for view in range(2)], before.labels
    with BuildProgress(Console(file=io.StringIO())) as progress:
        extend(ExtendSettings(cache=str(whole), views=10, device="cpu", batch_size=16, workers=0), progress)
    cache = open_cache(whole)
    assert (cache.manifest.format_version, cache.manifest.views.count) == (3, 10)
    assert (cache.class_names, cache.labels.tolist()) == (DIGITS, labels.tolist())
    for view, page in enumerate(pages):
        np.testing.assert_array_equal(cache.read_page(view), page)


def test_a_new_part_is_merged_with_an_old_one(begun: Path, tmp_path: Path) -> None:
    part = built(tmp_path / "part.zarr", rows="64:96", like=str(begun)).manifest
    assert part.format_version == 3
    for order in ([begun, tmp_path / "part.zarr"], [tmp_path / "part.zarr", begun]):
        out = tmp_path / f"{order[0].name}-first.zarr"
        with BuildProgress(Console(file=io.StringIO())) as progress:
            merged = merge(MergeSettings(parts=tuple(map(str, order)), out=str(out)), progress)
        assert merged.format_version == 3
        assert open_cache(out).class_names == DIGITS
        assert same_records(out, range(2))
        assert list(open_cache(out).damaged_shards()) == []


def test_it_is_verified_against_its_data_and_its_teacher(whole: Path) -> None:
    report = checked(whole)
    assert failed(report) == {}


def test_a_client_reads_it(whole: Path) -> None:
    with TeacherCache.open(str(whole)) as cache:
        assert cache.class_names == DIGITS
        np.testing.assert_array_equal(cache.fetch_page(1), open_cache(HERE / "whole.zarr").read_page(1))
