"""What is preloaded is in memory before anybody asks, within the budget."""

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import ConfigError
from logit_server.page_folder import PageFolder
from logit_server.pages import Pages
from logit_server.preload import Preload
from logit_server.settings import Settings
from logit_server.shelf import open_catalog


@pytest.mark.parametrize("names", [("all",), ("synthetic",), ("synthetic", "all")])
def test_every_view_is_in_memory(
    cache_path: Path, tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(caches=(str(cache_path),), preload=names)
    catalog = open_catalog(settings)
    (served,) = catalog
    preload = Preload(settings, catalog)
    caplog.set_level(logging.INFO, "logit_server")

    async def body() -> None:
        pages = Pages(PageFolder(tmp_path / "pages", 2**30))
        async with pages.refreshing(), preload.running(pages):
            assert not preload.is_done
            while not preload.is_done:
                await asyncio.sleep(0.01)
            for view in range(3):
                found = pages.resident(served, view, np.arange(100))
                assert found is not None
                np.testing.assert_array_equal(found, served.cache.read_page(view))

    asyncio.run(body())
    assert [record.message.split(",")[0] for record in caplog.records] == [
        f"preloaded view {view} of cache 'synthetic'" for view in range(3)
    ]


def test_nothing_to_preload_is_done(cache_path: Path) -> None:
    settings = Settings(caches=(str(cache_path),))
    assert Preload(settings, open_catalog(settings)).is_done


def test_a_cache_that_is_not_served_is_an_error(cache_path: Path) -> None:
    settings = Settings(caches=(str(cache_path),), preload=("other",))
    with pytest.raises(ConfigError, match=r"--preload other.*'synthetic'.*all"):
        Preload(settings, open_catalog(settings))


def test_more_than_the_budget_is_an_error(cache_path: Path) -> None:
    settings = Settings(caches=(str(cache_path),), preload=("all",), page_bytes=4000)
    with pytest.raises(ConfigError, match="budget of 4,000"):
        Preload(settings, open_catalog(settings))


def test_damage_ends_the_preloading_and_is_logged(
    own_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(caches=(str(own_cache),), preload=("all",))
    catalog = open_catalog(settings)
    for shard in (own_cache / "records").rglob("*"):
        if shard.is_file():
            shard.write_bytes(b"")
    preload = Preload(settings, catalog)

    async def body() -> None:
        pages = Pages(PageFolder(tmp_path / "pages", 2**30))
        async with pages.refreshing(), preload.running(pages):
            while not preload.is_done:
                await asyncio.sleep(0.01)

    asyncio.run(body())
    assert "preloading cache 'synthetic' ended" in caplog.text
