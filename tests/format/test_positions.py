"""Caches whose samples have several positions: a map each, or as many as they need."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cache_builder.build.repair import withdraw_damaged
from cache_builder.cli.app import app
from cache_builder.console.progress import Silent
from cache_builder.exchange.tiles import reencode_tile
from cache_builder.format import ConfigError, DataError, open_cache
from cache_builder.format.manifest import GridPositions, OnePosition, RaggedPositions
from cache_builder.format.positions import (
    COUNTS,
    STARTS,
    Positions,
    block_positions,
    position_count,
    ragged_starts,
)
from cache_builder.format.writer import CacheWriter
from tests.caches import synthetic_logits, synthetic_manifest
from tests.format import third_party_reader
from tests.format.position_caches import COUNTS_OF_ROWS, GRID, RAGGED, write_positions
from tests.format.test_golden import GOLDEN

KINDS: dict[str, tuple[GridPositions | RaggedPositions, tuple[int, ...]]] = {
    "grid": (GRID, (6,) * 5),
    "ragged": (RAGGED, COUNTS_OF_ROWS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_gives_its_positions(tmp_path: Path, kind: str) -> None:
    positions, counts = KINDS[kind]
    logits = synthetic_logits(3, sum(counts), 12, seed=4)
    write_positions(tmp_path / "c.zarr", positions, logits, counts)
    cache = open_cache(tmp_path / "c.zarr")
    ends = np.cumsum(counts)
    assert cache.positions.counts(range(5)).tolist() == list(counts)
    for view in range(3):
        whole = cache.read_page(view)
        decoded = cache.decode(whole)
        assert (decoded.argmax(axis=1) == logits[view].argmax(axis=1)).all()
        np.testing.assert_allclose(decoded.max(axis=1), logits[view].max(axis=1), rtol=1e-6)
        for first in range(5):
            for last in range(first, 5):
                own = slice(ends[first] - counts[first], ends[last])
                np.testing.assert_array_equal(cache.read_rows(view, range(first, last + 1)), whole[own])


@pytest.mark.parametrize("kind", KINDS)
def test_goldens_read_as_then_also_by_the_specification_alone(kind: str) -> None:
    path = GOLDEN / f"v3/{kind}.zarr"
    cache, expected = open_cache(path), np.load(path.with_suffix(".npy"))
    assert cache.manifest.positions == KINDS[kind][0]
    assert list(cache.damaged_shards()) == []
    for view, logits in enumerate(expected):
        ours = cache.decode(cache.read_page(view))
        np.testing.assert_allclose(ours, logits, rtol=1e-6, atol=1e-6)
        theirs = third_party_reader.read_logits(path, view)
        np.testing.assert_allclose(theirs, logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "command",
    [
        "export --format npz --out o.npz",
        "extend --views 9",
        "merge --out o.zarr",
        "merge --out o.zarr --reencode",
        "inspect --show 0.txt",
    ],
)
def test_commands_that_cannot_read_them_say_so(
    kind: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *options = command.split()
    cache = shutil.copytree(GOLDEN / f"v3/{kind}.zarr", tmp_path / "c.zarr")
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, [name, str(cache), *options])
    assert ended.exit_code == 2
    assert "several positions a sample" in " ".join(ended.output.split())


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_are_neither_repaired_nor_encoded_anew(kind: str, tmp_path: Path) -> None:
    path = shutil.copytree(GOLDEN / f"v3/{kind}.zarr", tmp_path / "c.zarr")
    cache = open_cache(path)
    with pytest.raises(ConfigError, match="several positions a sample"):
        withdraw_damaged(str(path), lambda: None, Silent())
    with pytest.raises(ConfigError, match="several positions a sample"):
        reencode_tile(cache, CacheWriter(path, cache.manifest), cache.tiles[0])
    assert open_cache(path).manifest.cache_id is not None


@pytest.mark.parametrize("kind", KINDS)
def test_any_rows_are_gathered_in_their_order(kind: str) -> None:
    cache = open_cache(GOLDEN / f"v3/{kind}.zarr")
    rows = [4, 1, 0, 3, 0]
    expected = [cache.read_rows(2, range(row, row + 1)) for row in rows]
    np.testing.assert_array_equal(cache.gather(2, rows), np.concatenate(expected))
    for wrong in ([0, 5], [-1]):
        with pytest.raises(DataError, match="out of range: the cache has rows 0 to 4"):
            cache.gather(2, wrong)
    for positions in (range(-1, 2), range(28, 31)):
        with pytest.raises(DataError, match=r"positions .* are out of range"):
            cache.read_positions(0, positions)


def test_what_belongs_to_no_row_is_zeros() -> None:
    cache = open_cache(GOLDEN / "v3/ragged.zarr")
    whole = cache.read_positions(1, range(15))
    owned = cache.positions.of(np.arange(5))
    np.testing.assert_array_equal(whole[owned], cache.read_page(1))
    assert not np.delete(whole, owned, axis=0).any()


def test_runs_that_begin_elsewhere_are_told() -> None:
    manifest = open_cache(GOLDEN / "v3/ragged.zarr").manifest
    counts = np.array(COUNTS_OF_ROWS)
    starts = ragged_starts(counts, 2, 5)
    assert Positions(manifest, {STARTS: starts, COUNTS: counts}).problem() is None
    starts[3] += 1
    assert "row 3 do not begin" in str(Positions(manifest, {STARTS: starts, COUNTS: counts}).problem())
    assert "a block of this cache holds 5" in str(
        Positions(manifest, {STARTS: starts, COUNTS: counts + 3}).problem()
    )


def test_the_geometry_of_each_kind() -> None:
    manifest = synthetic_manifest(rows=100, tile_rows=32)
    found = {}
    for positions in (OnePosition(), GridPositions(shape=(7, 7)), RaggedPositions(block=500)):
        changed = manifest.model_copy(update={"positions": positions})
        found[positions.kind] = block_positions(changed), position_count(changed)
    assert found == {"one": (32, 100), "grid": (32 * 49, 4900), "ragged": (500, 2000)}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 7))
def test_runs_are_the_positions_of_the_rows_and_no_sample_crosses_a_tile(
    counts: list[int], rows: int
) -> None:
    block = max(sum(counts[first : first + rows]) for first in range(0, len(counts), rows)) or 1
    manifest = synthetic_manifest(rows=len(counts), tile_rows=rows).model_copy(
        update={"positions": RaggedPositions(block=block)}
    )
    column = np.array(counts)
    starts = ragged_starts(column, rows, block)
    positions = Positions(manifest, {STARTS: starts, COUNTS: column})
    for row, count in enumerate(counts):
        assert row // rows * block <= starts[row] <= starts[row] + count <= (row // rows + 1) * block
    for first in range(len(counts)):
        wanted = [
            position
            for start, count in zip(starts[first:], counts[first:], strict=True)
            for position in range(start, start + count)
        ]
        runs = positions.runs(range(first, len(counts)))
        assert [position for run in runs for position in run] == wanted


def test_rows_that_do_not_fit_into_their_block_are_named() -> None:
    with pytest.raises(ConfigError, match="rows 2-3 have 9 positions, a block of this cache holds 8"):
        ragged_starts(np.array([4, 4, 8, 1]), 2, 8)
