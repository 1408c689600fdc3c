import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cache_builder.format import CorruptCacheError
from cache_builder.format.codecs import Part
from logit_server.errors import RequestError
from logit_server.page import Page
from logit_server.page_folder import PageFolder
from logit_server.pages import Pages
from logit_server.routes.records import gather
from logit_server.served_caches import Catalog, ServedCache
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from tests.format.damage import changed, flipped

PLENTY = 2**30


class CountingFolder(PageFolder):
    """Counts its loads and can hold them up."""

    def __init__(self, folder: Path, budget_bytes: int = PLENTY) -> None:
        super().__init__(folder, budget_bytes)
        self.loaded: list[tuple[int, int]] = []
        self.threads: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.gate = threading.Event()
        self.gate.set()

    def load(
        self, served: ServedCache, view: int, page: Page, block: int, part: Part = Part.WHOLE
    ) -> NDArray[np.uint8]:
        self.loaded.append((view, block))
        self.threads.add(threading.current_thread().name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.gate.wait(30)
        try:
            return super().load(served, view, page, block, part)
        finally:
            self.at_once -= 1


@pytest.fixture
def served(own_cache: Path) -> ServedCache:
    (opened,) = open_catalog(Settings(caches=(str(own_cache),)))
    return opened


@pytest.fixture
def folder(tmp_path: Path) -> CountingFolder:
    return CountingFolder(tmp_path / "pages")


@contextlib.asynccontextmanager
async def running(folder: PageFolder) -> AsyncIterator[Pages]:
    pages = Pages(folder)
    async with pages.refreshing():
        yield pages


def run(folder: PageFolder, body: Callable[[Pages], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        async with running(folder) as pages:
            await body(pages)

    asyncio.run(main())


def other_worker(folder: PageFolder, budget: int, served: ServedCache, view: int) -> None:
    """Load a block of a view as another process of the run would."""
    other = PageFolder(folder.folder, budget)
    other.load(served, view, other.open(served, view), 0)


FIRST, LAST = np.array([3, 31], np.uint32), np.array([99], np.uint32)
ALL = np.random.default_rng(0).permutation(100).astype(np.uint32)


def test_requests_that_come_together_load_once_outside_the_event_loop(
    folder: CountingFolder, served: ServedCache
) -> None:
    async def body(pages: Pages) -> None:
        loaded = await asyncio.gather(*(pages.gather(served, 1, FIRST) for _ in range(20)))
        for records in loaded:
            np.testing.assert_array_equal(records, served.cache.read_page(1)[FIRST])

    run(folder, body)
    assert folder.loaded == [(1, 0)]
    assert threading.main_thread().name not in folder.threads


def test_rows_that_are_resident_are_there_at_once(folder: CountingFolder, served: ServedCache) -> None:
    async def body(pages: Pages) -> None:
        assert pages.resident(served, 0, FIRST) is None
        await pages.gather(served, 0, FIRST)
        np.testing.assert_array_equal(pages.resident(served, 0, FIRST), served.cache.read_page(0)[FIRST])
        assert pages.resident(served, 0, LAST) is None

    run(folder, body)


@pytest.mark.parametrize("budget", [1, 2, 100], ids=lambda blocks: f"{blocks} blocks")
def test_rows_of_several_blocks_are_gathered_whatever_the_budget(
    tmp_path: Path, served: ServedCache, budget: int
) -> None:
    folder = CountingFolder(tmp_path / "pages", budget * served.block_bytes)

    async def body(pages: Pages) -> None:
        for view in (0, 1, 0):
            page = served.cache.read_page(view)
            np.testing.assert_array_equal(await pages.gather(served, view, ALL), page[ALL])
            pieces = [piece async for piece in pages.stream(served, view, range(20, 97))]
            np.testing.assert_array_equal(np.concatenate(pieces), page[20:97])

    run(folder, body)
    assert folder.most_at_once <= 2


def test_only_what_is_missing_is_loaded(folder: CountingFolder, served: ServedCache) -> None:
    async def body(pages: Pages) -> None:
        await pages.gather(served, 0, LAST)
        await pages.gather(served, 0, np.array([40, 99, 41], np.uint32))
        assert [len(piece) async for piece in pages.stream(served, 0, range(60, 70))] == [4, 6]

    run(folder, body)
    assert folder.loaded == [(0, 3), (0, 1), (0, 2)]


def test_rows_out_of_range_load_nothing(folder: CountingFolder, served: ServedCache) -> None:
    async def body(pages: Pages) -> None:
        with pytest.raises(RequestError, match=r"1 row\(s\) are out of range: 100"):
            await gather(pages, served, 0, np.array([3, 100], np.uint32))

    run(folder, body)
    assert folder.loaded == []


def test_a_client_that_hangs_up_takes_the_block_from_nobody(
    folder: CountingFolder, served: ServedCache
) -> None:
    async def body(pages: Pages) -> None:
        folder.gate.clear()
        first = asyncio.create_task(pages.gather(served, 0, FIRST))
        second = asyncio.create_task(pages.gather(served, 0, FIRST))
        while not folder.loaded:
            await asyncio.sleep(0.01)
        first.cancel()
        folder.gate.set()
        assert (await second).shape == (len(FIRST), served.record_bytes)
        assert first.cancelled()

    run(folder, body)
    assert folder.loaded == [(0, 0)]


def test_damage_is_for_who_needs_the_tile_and_for_nobody_later(
    folder: CountingFolder, served: ServedCache, own_cache: Path
) -> None:
    shard = own_cache / "records/logits/lse_above/c" / "0" / "2"

    async def body(pages: Pages) -> None:
        with changed(shard, flipped(shard.read_bytes(), 333)):
            failed = await asyncio.gather(
                *(pages.gather(served, 0, ALL) for _ in range(3)), return_exceptions=True
            )
            assert [type(error) for error in failed] == [CorruptCacheError] * 3
            assert "views 0-1, rows 64-95" in str(failed[0])
            np.testing.assert_array_equal(
                await pages.gather(served, 0, LAST), served.cache.read_rows(0, range(99, 100))
            )
        np.testing.assert_array_equal(await pages.gather(served, 0, ALL), served.cache.read_page(0)[ALL])

    run(folder, body)


def test_blocks_that_another_worker_evicted_are_loaded_again(tmp_path: Path, served: ServedCache) -> None:
    folder = CountingFolder(tmp_path / "pages", served.block_bytes)

    async def body(pages: Pages) -> None:
        await pages.gather(served, 0, FIRST)
        other_worker(folder, served.block_bytes, served, 1)
        assert pages.resident(served, 0, FIRST) is None, "without a refresh"
        np.testing.assert_array_equal(await pages.gather(served, 0, FIRST), served.cache.read_page(0)[FIRST])

    run(folder, body)


def test_other_workers_learn_which_blocks_are_in_use(tmp_path: Path, served: ServedCache) -> None:
    budget = 2 * served.block_bytes
    folder = CountingFolder(tmp_path / "pages", budget)

    async def body(pages: Pages) -> None:
        for view in (0, 1, 0):
            await pages.gather(served, view, FIRST)
        await pages.refresh()
        other_worker(folder, budget, served, 2)
        assert pages.resident(served, 0, FIRST) is not None
        assert pages.resident(served, 1, FIRST) is None

    run(folder, body)


def test_pages_refresh_by_themselves(
    folder: CountingFolder, served: ServedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logit_server.pages.REFRESH_S", 0.01)

    async def body(pages: Pages) -> None:
        await pages.gather(served, 0, FIRST)
        assert pages.resident(served, 0, FIRST) is not None
        folder.path(served.cache_id, 0).unlink()
        async with asyncio.timeout(30):
            while pages.resident(served, 0, FIRST) is not None:
                await asyncio.sleep(0.01)
        assert pages.resident(served, 0, FIRST) is None

    run(folder, body)


def test_pages_of_caches_that_are_not_served_any_more_are_let_go(
    served: ServedCache, folder: CountingFolder
) -> None:
    async def check() -> None:
        pages, rows = Pages(folder), np.arange(10)
        async with pages.refreshing():
            first = await pages.gather(served, 0, rows)
            pages.take(Catalog([served]))
            await pages.refresh()
            assert pages.resident(served, 0, rows) is not None
            assert folder.used_bytes() > 0
            pages.take(Catalog([]))
            await pages.refresh()
            assert pages.resident(served, 0, rows) is None
            assert folder.used_bytes() == 0
            np.testing.assert_array_equal(await pages.gather(served, 0, rows), first)

    asyncio.run(check())
