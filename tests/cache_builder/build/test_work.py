"""Which tiles a process takes, in which order, and when it is through."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from cache_builder.build import work as module
from cache_builder.build.sharing import SharingWriter
from cache_builder.build.work import Leased, Listed, Tally
from cache_builder.format import ConfigError, KDCacheError
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.locks.block_leases import BlockLeases
from cache_builder.format.locks.lock import claimed
from cache_builder.format.manifest import Manifest
from cache_builder.format.owned import leased_block
from cache_builder.format.reader import open_cache
from cache_builder.format.root import read_manifest
from cache_builder.format.writer import CacheWriter, tile_columns
from tests.cache_builder.trees import objects
from tests.caches import synthetic_logits, write_synthetic_cache


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A sealed cache of three view groups and seven row blocks."""
    path = tmp_path / "whole.zarr"
    write_synthetic_cache(path, synthetic_logits(5, 28, 12), tile_rows=4)
    return path


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> Path:
    """The same cache before its first tile."""
    path = tmp_path / "begun.zarr"
    write_synthetic_cache(path, synthetic_logits(5, 28, 12), tile_rows=4, commit=0)
    return path


class Process:
    """One of those that share a cache: it takes its tiles from a whole one instead of computing them."""

    def __init__(self, begun: Path, whole: Path, stack: ExitStack) -> None:
        manifest = read_manifest(begun)
        assert manifest is not None
        self.manifest: Manifest = manifest
        self.said: list[str] = []
        self.writer = SharingWriter(begun, manifest)
        self.leases = stack.enter_context(BlockLeases(begun))
        self.work = Leased(str(begun), tiles(manifest), self.leases, self.said.append)
        self._whole = open_cache(whole)
        self.taken: list[Tile] = []

    def step(self) -> bool:
        """Take a tile and write it; whether there was one."""
        tile = self.work.take()
        if tile is None:
            return False
        self.taken.append(tile)
        self.write(tile)
        return True

    def write(self, tile: Tile) -> None:
        """Write a tile as the thread of a builder does."""
        if self.work.is_ours(tile):
            records = np.stack([self._whole.read_rows(view, tile.rows) for view in tile.views])
            fields = tile_columns(records, self.writer.codec)
            commit = self._whole.commits[tile.key]
            digests = self._whole.read_digests(tile.rows)
            self.writer.write_tile(tile, fields, digests, commit.invalid_rows, commit.statistics)
            self.work.committed(tile)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("seed", range(3))
def test_each_tile_is_taken_once_and_the_groups_of_a_block_stay_together(
    begun: Path, whole: Path, stack: ExitStack, seed: int
) -> None:
    processes = [Process(begun, whole, stack) for _ in range(3)]
    turns = random.Random(seed)
    while any(process.step() for process in turns.sample(processes, 3)):
        pass
    assert [process.work.wait() for process in processes] == [False] * 3
    taken = [tile for process in processes for tile in process.taken]
    assert sorted(map(str, taken)) == sorted(map(str, tiles(processes[0].manifest)))
    for process in processes:
        for _, of_block in itertools.groupby(process.taken, key=lambda tile: tile.block):
            assert [tile.group for tile in of_block] == [0, 1, 2]
    CacheWriter(begun, processes[0].manifest).finish()
    assert objects(begun) == objects(whole)


def test_who_has_nothing_to_do_waits_for_the_others(
    begun: Path, whole: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.0)
    one, two = (Process(begun, whole, stack) for _ in range(2))
    last = None
    while (tile := one.work.take()) is not None:
        one.write(tile) if last is None else None
        last = last or (tile if tile.group == 2 else None)
    assert not two.step()
    assert two.work.wait()
    assert two.work.wait()
    assert two.said == ["6 row blocks are left, and other processes build them: waiting for them"]


def test_a_process_that_lost_its_lease_writes_nothing(
    begun: Path, whole: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one took its block over, wrote it, and gave it back."""
    slow = Process(begun, whole, stack)
    tile = slow.work.take()
    assert tile is not None
    slow.work._leases._held[tile.block].is_lost = True
    before = objects(begun)
    slow.write(tile)
    assert objects(begun) == before
    assert len(slow.said) == 1
    assert "goes on with other blocks" in slow.said[0]


def test_a_late_write_changes_nothing(begun: Path, whole: Path, stack: ExitStack) -> None:
    """Should it be stopped between its look at the lease and its write, also of a cache sealed since."""
    process = Process(begun, whole, stack)
    while process.step():
        pass
    CacheWriter(begun, process.manifest).finish()
    before = objects(begun)
    late = Process(begun, whole, stack)
    late.work.is_ours = lambda tile: True  # type: ignore[method-assign]
    late.writer.is_committed = lambda tile: False  # type: ignore[method-assign]
    for tile in tiles(process.manifest):
        late.write(tile)
    assert objects(begun) == before


def test_two_machines_that_compute_other_numbers_are_told(begun: Path, whole: Path, stack: ExitStack) -> None:
    process = Process(begun, whole, stack)
    tile = process.work.take()
    assert tile is not None
    (begun / tile.key).write_bytes(b"{}")
    before = objects(begun)
    process.writer.is_committed = lambda tile: False  # type: ignore[method-assign]
    with pytest.raises(KDCacheError, match=r"other bytes: do its machine or libraries differ .* --repair"):
        process.write(tile)
    assert objects(begun) == before  # not a shard of theirs was replaced


def test_a_commit_that_comes_between_is_not_replaced(
    begun: Path, whole: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(begun, whole, stack)
    tile = process.work.take()
    assert tile is not None
    shards = process.writer._write_shards

    def slowly(written: dict[str, bytes]) -> None:
        shards(written)
        (begun / tile.key).write_bytes(b"{}")

    monkeypatch.setattr(process.writer, "_write_shards", slowly)
    with pytest.raises(KDCacheError, match="other bytes"):
        process.write(tile)
    assert (begun / tile.key).read_bytes() == b"{}"


def test_blocks_that_are_committed_are_not_leased(begun: Path, whole: Path, stack: ExitStack) -> None:
    first = Process(begun, whole, stack)
    blocks = {tile.block for tile in tiles(first.manifest)}
    while len({tile.block for tile in first.taken}) < len(blocks) - 1:
        first.step()
    left = Process(begun, whole, stack)
    left.work._last = first.taken[0].block - 1  # so that its next neighbour is committed
    with mock.patch.object(left.leases, "take", side_effect=left.leases.take) as take:
        assert left.work.take() is not None
    assert take.call_count == 1


def test_a_lone_builder_that_came_is_named(
    begun: Path, whole: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(begun, whole, stack)
    with monkeypatch.context() as patch:
        patch.setattr(module, "lone_holder", lambda out: "process 7 on far")
        with pytest.raises(ConfigError, match="is being built by process 7 on far, which does not share it"):
            process.step()
    with claimed(begun, "shared"):
        assert process.step()


def test_the_tally_counts_what_others_did(begun: Path, whole: Path, stack: ExitStack) -> None:
    process = Process(begun, whole, stack)
    everything = list(tiles(process.manifest))
    before = Tally(str(begun), everything, is_live=False)
    listed = Listed(everything, before)
    assert (listed.total, listed.elsewhere()) == (140, 0)
    process.step()
    tally = Tally(str(begun), everything, is_live=True)
    count = process.taken[0].count
    assert (tally.elsewhere(), len(tally.missing)) == (count, len(everything) - 1)
    tally.note(tally.missing[0])
    tally.look()
    assert (tally.elsewhere(), len(tally.missing)) == (count, len(everything) - 2)
    assert Listed(everything, tally).take() == tally.missing[0]


def test_a_writer_that_shares_writes_nothing_without_the_right_to(
    begun: Path, whole: Path, stack: ExitStack
) -> None:
    def lost() -> None:
        raise KDCacheError("the output is not held any more")

    process, before = Process(begun, whole, stack), objects(begun)
    process.writer = SharingWriter(begun, process.manifest, lost)
    with pytest.raises(KDCacheError, match="not held any more"):
        process.step()
    assert {key: data for key, data in objects(begun).items() if leased_block(key) is None} == before
