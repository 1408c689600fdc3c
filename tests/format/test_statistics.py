"""A tile's statistics: they add up, and a cache without them or with damaged ones reads as any other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cache_builder.format import open_cache
from cache_builder.format.commits import INDEX_KEY, identity_bytes
from cache_builder.format.manifest import canonical_json
from cache_builder.format.statistics import StatisticSums, TileStatistics, figures
from cache_builder.format.writer import CacheWriter
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format import third_party_reader


def sums(seed: int = 0, **changes: object) -> StatisticSums:
    """Sums of 30 records, 20 of them labelled."""
    rng = np.random.default_rng(seed)
    hits = rng.multinomial(12, np.ones(15) / 15)
    missed = rng.multinomial(8, np.ones(15) / 15)
    body = {
        "records": 30,
        "labelled": 20,
        "top1": 12,
        "top5": 17,
        "nll": float(rng.uniform(10, 20)),
        "entropy": float(rng.uniform(10, 20)),
        "bin_records": (hits + missed).tolist(),
        "bin_top1": hits.tolist(),
        "bin_confidence": ((hits + missed) * (np.arange(15) + 0.5) / 15).tolist(),
        "entropy_records": rng.multinomial(30, np.ones(20) / 20).tolist(),
    }
    return StatisticSums.model_validate(body | changes)


class TestFigures:
    def test_of_no_record(self) -> None:
        assert figures([], 10) is None
        empty = sums(
            records=0, labelled=0, top1=0, top5=0, nll=0, entropy=0, bin_records=[0] * 15,
            bin_top1=[0] * 15, bin_confidence=[0] * 15, entropy_records=[0] * 20,
        )  # fmt: skip
        assert figures([empty], 10) is None
        assert figures([empty, sums()], 10) == figures([sums()], 10)

    def test_of_several_tiles(self) -> None:
        tiles = [sums(seed) for seed in range(3)]
        found = figures(tiles, 40)
        assert found is not None
        assert (found.records, found.labelled, found.top1, found.top5) == (90, 60, 36 / 60, 51 / 60)
        assert found.nll == pytest.approx(sum(tile.nll for tile in tiles) / 60)
        assert found.entropy == pytest.approx(sum(tile.entropy for tile in tiles) / 90)
        assert found.entropy_limit == math.log(40)
        assert sum(found.entropy_histogram) == 90
        counts, hits, sure = (
            np.sum([getattr(tile, name) for tile in tiles], axis=0)
            for name in ("bin_records", "bin_top1", "bin_confidence")
        )
        filled = counts > 0
        gaps = np.abs(hits[filled] / counts[filled] - sure[filled] / counts[filled])
        assert found.ece == pytest.approx((counts[filled] / 60 * gaps).sum())

    def test_the_order_of_tiles_does_not_matter(self) -> None:
        tiles = [sums(seed) for seed in range(50)]
        assert figures(tiles, 40) == figures(tiles[::-1], 40)

    def test_without_labels_only_the_entropy(self) -> None:
        found = figures([sums(labelled=0)], 40)
        assert found is not None
        assert (found.top1, found.top5, found.nll, found.ece) == (None, None, None, None)
        assert found.entropy > 0


class TestChecksum:
    def test_what_was_written_is_read_back(self) -> None:
        sealed = TileStatistics.sealed(sums())
        assert TileStatistics.model_validate_json(canonical_json(sealed.model_dump(mode="json"))) == sealed

    @pytest.mark.parametrize(
        "change",
        [
            lambda body: body.update(top1=11),
            lambda body: body.update(nll=body["nll"] + 1e-9),
            lambda body: body["bin_records"].append(0),
            lambda body: body["entropy_records"].pop(),
            lambda body: body.update(records=-1),
            lambda body: body.update(surprise=1),
            lambda body: body.pop("crc32"),
            lambda body: body.update(entropy=float("nan")),
        ],
    )
    def test_anything_else_is_damage(self, change: Callable[[dict[str, Any]], object]) -> None:
        body = TileStatistics.sealed(sums()).model_dump(mode="json")
        change(body)
        with pytest.raises(ValidationError):
            TileStatistics.model_validate_json(json.dumps(body))


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A cache of eight tiles, each with its statistics."""
    path = tmp_path / "c.zarr"
    logits = synthetic_logits(3, 100, 40)
    manifest = write_synthetic_cache(path, logits)
    plain, writer = open_cache(path), CacheWriter(path, manifest)
    pages = np.stack([plain.read_page(view) for view in range(3)]).view(manifest.codec.layout.dtype)
    for seed, tile in enumerate(plain.tiles):
        block = pages[tile.view_start : tile.view_stop, tile.row_start : tile.row_stop, 0]
        fields = {name: np.ascontiguousarray(block[name]) for name in block.dtype.names or ()}
        digests = plain.digests[tile.row_start : tile.row_stop]
        writer.write_tile(tile, fields, digests, statistics=TileStatistics.sealed(sums(seed)))
    writer.finish()
    return path


def edit_second(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the index says of the second tile."""
    body = json.loads((path / INDEX_KEY).read_bytes())
    change(body["commits"][1])
    (path / INDEX_KEY).write_bytes(canonical_json(body))


class TestInACache:
    def test_they_are_there(self, measured: Path) -> None:
        assert open_cache(measured).statistics() == figures([sums(seed) for seed in range(8)], 40)

    def test_the_cache_id_does_not_know_them(self, measured: Path, tmp_path: Path) -> None:
        write_synthetic_cache(tmp_path / "plain.zarr", synthetic_logits(3, 100, 40))
        plain, with_them = open_cache(tmp_path / "plain.zarr"), open_cache(measured)
        assert plain.statistics() is None
        assert plain.manifest.cache_id == with_them.manifest.cache_id
        assert plain.commit_bytes_in_order() == with_them.commit_bytes_in_order()
        stored = (tmp_path / "plain.zarr" / plain.tiles[0].key).read_bytes()
        assert b"statistics" not in stored
        assert identity_bytes(stored) is stored

    def test_a_reader_from_the_specification(self, measured: Path) -> None:
        cache = open_cache(measured)
        theirs = third_party_reader.read_logits(measured, 1)
        np.testing.assert_allclose(theirs, cache.decode(cache.read_page(1)), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        "change",
        [
            lambda body: body.pop("statistics"),
            lambda body: body.update(statistics=None),
            lambda body: body.update(statistics="what a later release says"),
            lambda body: body["statistics"].update(top1=3),
            lambda body: body["statistics"].update(later=3),
            lambda body: body["statistics"].pop("crc32"),
        ],
    )
    def test_damaged_or_missing_ones_make_no_cache_unreadable(
        self, measured: Path, change: Callable[[dict[str, Any]], object]
    ) -> None:
        cache = open_cache(measured)
        before, id_before = cache.read_page(0), cache.manifest.cache_id
        edit_second(measured, change)
        after = open_cache(measured)
        assert after.manifest.cache_id == id_before
        np.testing.assert_array_equal(after.read_page(0), before)
        assert list(after.damaged_shards()) == []
        assert after.statistics() == figures([sums(seed) for seed in range(8) if seed != 1], 40)
        third_party_reader.read_logits(measured, 0)

    def test_what_else_a_commit_says_is_still_guarded(self, measured: Path) -> None:
        from cache_builder.format import CorruptCacheError

        edit_second(
            measured,
            lambda body: body["shards"]["records/logits/lse"].update(crc32=1),
        )
        with pytest.raises(CorruptCacheError, match="do not give cache_id"):
            open_cache(measured)
