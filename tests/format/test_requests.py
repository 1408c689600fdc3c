"""What reading costs a store: a row costs the same number of requests, however many tiles a view has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format.reader import open_cache
from logit_server.page_folder import PageFolder
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.counting import Requests, counted_requests
from trainer.teacher.local import StoreSource

TILES = (8, 32, 128)
TILE_ROWS = 4
Counted = dict[str, int]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Caches of one view group by their number of tiles."""
    folder = tmp_path_factory.mktemp("requests")
    for tiles in TILES:
        logits = synthetic_logits(2, tiles * TILE_ROWS, 12)
        write_synthetic_cache(folder / f"{tiles}.zarr", logits, tile_rows=TILE_ROWS)
    return {tiles: folder / f"{tiles}.zarr" for tiles in TILES}


def count_reader(path: Path, requests: Requests) -> Counted:
    cache = open_cache(path)
    requests.clear()
    cache.read_rows(1, range(5, 6))
    first = requests.taken()
    cache.read_rows(1, range(5, 6))
    again = requests.taken()
    cache.gather(1, [6, 1, 5, 6])
    two = requests.taken()
    cache.read_digests(range(5, 6))
    return {"row": first, "again": again, "rows of two blocks": two, "digest": requests.taken()}


def count_trainer(path: Path, requests: Requests) -> Counted:
    source = StoreSource(str(path), patience_s=0)
    requests.clear()
    source.records(1, np.array([5]))
    first = requests.taken()
    source.records(1, np.array([5]))
    again = requests.taken()
    source.records(1, np.array([9, 5]))
    return {"row": first, "again": again, "a row of another block": requests.taken()}


def count_server(path: Path, requests: Requests) -> Counted:
    (served,) = open_catalog(Settings(caches=(str(path),)))
    folder = PageFolder(path.with_suffix(".pages"), 2**20)
    page = folder.open(served, 1)
    requests.clear()
    folder.load(served, 1, page, 1)
    first = requests.taken()
    folder.load(served, 1, page, 1)
    return {"row": first, "again": requests.taken()}


READERS = [count_reader, count_trainer, count_server]


@pytest.mark.parametrize("count", READERS, ids=lambda count: count.__name__)
def test_a_row_costs_the_same_whatever_the_tiles(
    count: Callable[[Path, Requests], Counted], caches: dict[int, Path]
) -> None:
    with counted_requests() as requests:
        counts = [count(caches[tiles], requests) for tiles in TILES]
    assert counts[0] == counts[1] == counts[2]
    fields = 7
    # A size, a shard's index and a chunk for every field; the first time also the array's own metadata.
    assert 0 < counts[0]["row"] <= 5 * fields + 1


@pytest.mark.parametrize("count", [count_trainer, count_server], ids=lambda count: count.__name__)
def test_a_row_that_was_read_is_kept(
    count: Callable[[Path, Requests], Counted], caches: dict[int, Path]
) -> None:
    with counted_requests() as requests:
        assert count(caches[8], requests)["again"] == 0


def test_opening_reads_the_manifest_and_the_index_of_commits(caches: dict[int, Path]) -> None:
    with counted_requests() as requests:
        for tiles in TILES:
            open_cache(caches[tiles])
            assert requests.taken() == 2
