import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import CorruptCacheError
from logit_server.page_folder import Page, PageFolder
from logit_server.pages import Pages
from logit_server.served_caches import ServedCache, open_catalog
from logit_server.settings import Settings
from tests.format.damage import changed, flipped

PLENTY = 2**30


class CountingFolder(PageFolder):
    """Counts its loads and can hold them up."""

    def __init__(self, folder: Path, budget_bytes: int = PLENTY) -> None:
        super().__init__(folder, budget_bytes)
        self.opened: list[int] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def open(self, served: ServedCache, view: int) -> Page:
        self.opened.append(view)
        self.threads.add(threading.current_thread().name)
        self.gate.wait(30)
        return super().open(served, view)


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


def test_requests_that_come_together_load_once_outside_the_event_loop(
    folder: CountingFolder, served: ServedCache
) -> None:
    async def body(pages: Pages) -> None:
        loaded = await asyncio.gather(*(pages.get(served, 1) for _ in range(20)))
        assert len({id(page) for page in loaded}) == 1
        np.testing.assert_array_equal(loaded[0].records, served.cache.read_page(1))

    run(folder, body)
    assert folder.opened == [1]
    assert threading.main_thread().name not in folder.threads


def test_a_resident_page_is_returned_without_leaving_the_event_loop(
    folder: CountingFolder, served: ServedCache
) -> None:
    async def body(pages: Pages) -> None:
        page = await pages.get(served, 0)
        again = pages.get(served, 0)
        # A coroutine that never suspends is over at its first step.
        with pytest.raises(StopIteration) as over:
            again.send(None)
        assert over.value.value is page

    run(folder, body)


def test_a_client_that_hangs_up_takes_the_page_from_nobody(
    folder: CountingFolder, served: ServedCache
) -> None:
    async def body(pages: Pages) -> None:
        folder.gate.clear()
        first = asyncio.create_task(pages.get(served, 0))
        second = asyncio.create_task(pages.get(served, 0))
        await asyncio.sleep(0)
        first.cancel()
        folder.gate.set()
        assert (await second).records.shape == (served.samples, served.record_bytes)
        assert first.cancelled()

    run(folder, body)
    assert folder.opened == [0]


def test_a_failure_is_for_everybody_who_waits_and_for_nobody_later(
    folder: CountingFolder, served: ServedCache, own_cache: Path
) -> None:
    shard = own_cache / "records" / "lse_above" / "c" / "0" / "2"

    async def body(pages: Pages) -> None:
        with changed(shard, flipped(shard.read_bytes(), 333)):
            failed = await asyncio.gather(*(pages.get(served, 0) for _ in range(3)), return_exceptions=True)
            assert [type(error) for error in failed] == [CorruptCacheError] * 3
        np.testing.assert_array_equal((await pages.get(served, 0)).records, served.cache.read_page(0))

    run(folder, body)
    assert folder.opened == [0, 0]


def test_pages_that_another_worker_evicted_are_let_go(tmp_path: Path, served: ServedCache) -> None:
    folder = CountingFolder(tmp_path / "pages", budget_bytes=served.page_bytes)

    async def body(pages: Pages) -> None:
        await pages.get(served, 0)
        PageFolder(folder.folder, served.page_bytes).open(served, 1)  # the other worker
        await pages.refresh()
        assert pages.resident(served, 0) is None
        np.testing.assert_array_equal((await pages.get(served, 0)).records, served.cache.read_page(0))

    run(folder, body)


def test_other_workers_learn_which_pages_are_in_use(tmp_path: Path, served: ServedCache) -> None:
    folder = CountingFolder(tmp_path / "pages", budget_bytes=2 * served.page_bytes)

    async def body(pages: Pages) -> None:
        await pages.get(served, 0)
        await pages.get(served, 1)
        await pages.get(served, 0)
        await pages.refresh()
        PageFolder(folder.folder, 2 * served.page_bytes).open(served, 2)  # the other worker
        await pages.refresh()
        assert pages.resident(served, 0) is not None
        assert pages.resident(served, 1) is None

    run(folder, body)


def test_pages_refresh_by_themselves(
    folder: CountingFolder, served: ServedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logit_server.pages.REFRESH_S", 0.01)

    async def body(pages: Pages) -> None:
        await pages.get(served, 0)
        folder.path(served.cache_id, 0).unlink()
        while pages.resident(served, 0) is not None:
            await asyncio.sleep(0.01)

    run(folder, body)
