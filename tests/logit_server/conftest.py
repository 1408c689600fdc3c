"""Caches and a running server shared by the server's tests. Tests that damage a cache copy it first."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cache_builder.format import Cache, open_cache
from logit_server.run import serving
from logit_server.served_caches import ServedCache
from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.logit_server.odd_cache import write_odd_cache
from tests.logit_server.web.page_caches import write_page_cache


@pytest.fixture(scope="session")
def cache_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache named "synthetic": 3 views in groups of 2, 100 rows in blocks of 32, 40 classes."""
    path = tmp_path_factory.mktemp("caches") / "synthetic.zarr"
    write_synthetic_cache(path, synthetic_logits(views=3, rows=100, classes=40), sketch=True)
    return path


@pytest.fixture(scope="session")
def odd_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache named "odd": ids that need escaping in a URL, no labels, no class names, an invalid row."""
    path = tmp_path_factory.mktemp("caches") / "odd.zarr"
    write_odd_cache(path)
    return path


@pytest.fixture(scope="session")
def large_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose view, 10 MB, is more than the socket buffers on both sides take."""
    path = tmp_path_factory.mktemp("large") / "large.zarr"
    write_synthetic_cache(path, synthetic_logits(1, 200_000, 20), top_k=20, tile_rows=16_384)
    return path


@pytest.fixture(scope="session")
def cache(cache_path: Path) -> Cache:
    """The cache as a local reader sees it."""
    return open_cache(cache_path)


@pytest.fixture(scope="session")
def url(cache_path: Path, odd_path: Path) -> Iterator[str]:
    """The base URL of a server of both caches."""
    with serving(Settings(caches=(str(cache_path), str(odd_path)), port=0)) as base:
        yield base


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[httpx2.Client]:
    """A client of that server."""
    with httpx2.Client(base_url=url, timeout=60) as opened:
        yield opened


@pytest.fixture
def own_cache(cache_path: Path, tmp_path: Path) -> Path:
    """A copy of the cache that the test may damage."""
    return Path(shutil.copytree(cache_path, tmp_path / "own.zarr"))


@pytest.fixture(scope="session")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache named "pages"."""
    path = tmp_path_factory.mktemp("page-caches") / "pages.zarr"
    write_page_cache(path)
    return path


@pytest.fixture(scope="session")
def served(page_path: Path) -> ServedCache:
    """The same as a server has it."""
    cache = open_cache(page_path)
    return ServedCache("pages", cache, cache.manifest.completed_id)


@pytest.fixture(scope="session")
def site(page_path: Path, odd_path: Path) -> Iterator[str]:
    """The base URL of a server of that cache and of one without labels, names and measurements."""
    with serving(Settings(caches=(str(page_path), str(odd_path)), port=0)) as base:
        yield base


@pytest.fixture
def reader(site: str) -> Iterator[httpx2.Client]:
    """A client that reads pages, as browsers do."""
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    with httpx2.Client(base_url=site, headers={"Accept": accept}) as opened:
        yield opened
