"""What the views of a sample share is fetched once, and the records are those that a reader gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache_builder.client import remote_cache as remote
from cache_builder.client import shared_parts
from cache_builder.client.remote_cache import RemoteCache
from cache_builder.format import open_cache
from cache_builder.format.reader import Cache
from logit_server.run import serving
from logit_server.settings import Settings
from tests.caches import synthetic_logits
from tests.format.joint import write_joint_cache
from trainer import TeacherCache

N, VIEWS, HEIGHT = 70, 5, 4


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "joint.zarr"
    write_joint_cache(path, synthetic_logits(VIEWS, N, 40), tile_views=HEIGHT, tile_rows=32, name="joint")
    return path


@pytest.fixture(scope="module")
def url(path: Path) -> Iterator[str]:
    with serving(Settings(caches=(str(path),), port=0)) as base:
        yield f"{base}/v1/caches/joint"


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of the records that came, answer by answer."""
    sizes: list[int] = []
    read = RemoteCache._as_records

    def counting(self, response, counts, part):
        sizes.append(len(response.content))
        return read(self, response, counts, part)

    monkeypatch.setattr(RemoteCache, "_as_records", counting)
    return sizes


def test_rows_of_one_view_after_another(path: Path, url: str, came: list[int]) -> None:
    cache = open_cache(path)
    shared, own = cache.layout.shared_bytes, cache.record_bytes - cache.layout.shared_bytes
    rows = np.array([69, 3, 3, 40])
    with TeacherCache.open(url) as remote_cache:
        for view in range(VIEWS):
            np.testing.assert_array_equal(remote_cache.fetch(view, rows), cache.read_page(view)[rows])
    group = [3 * shared, 4 * own]  # row 3 was asked for twice
    assert came == [*group, 4 * own, 4 * own, 4 * own, *group]


def test_only_the_rows_that_are_missing_are_fetched(path: Path, url: str, came: list[int]) -> None:
    cache = open_cache(path)
    with TeacherCache.open(url) as remote_cache:
        remote_cache.fetch(0, [1, 2, 3])
        came.clear()
        np.testing.assert_array_equal(remote_cache.fetch(1, [3, 5]), cache.read_page(1)[[3, 5]])
    assert came == [cache.layout.shared_bytes, 2 * (cache.record_bytes - cache.layout.shared_bytes)]


def test_pages_in_slices(path: Path, url: str, came: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RECORDS_PER_REQUEST", 32)
    cache = open_cache(path)
    with TeacherCache.open(url) as remote_cache:
        for view in range(VIEWS):
            np.testing.assert_array_equal(remote_cache.fetch_page(view), cache.read_page(view))
    shared = cache.layout.shared_bytes
    assert sum(came) == N * (2 * shared + VIEWS * (cache.record_bytes - shared))


def test_what_does_not_fit_into_memory_comes_with_every_record(
    path: Path, url: str, came: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_parts, "MOST_BYTES", 100)
    cache = open_cache(path)
    with TeacherCache.open(url) as remote_cache:
        for view in (0, 1):
            np.testing.assert_array_equal(remote_cache.fetch(view, [7, 8]), cache.read_page(view)[[7, 8]])
    assert came == [2 * cache.record_bytes] * 2


def test_a_store_decodes_the_shared_part_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    column = Cache._column

    def counting(self, spec, *given):
        read.append(spec.path.rpartition("/")[2])
        return column(self, spec, *given)

    monkeypatch.setattr(Cache, "_column", counting)
    cache, expected = (
        TeacherCache.open(str(path)),
        [open_cache(path).read_page(view) for view in range(VIEWS)],
    )
    read.clear()
    for view in range(VIEWS):
        np.testing.assert_array_equal(cache.fetch_page(view), expected[view])
    assert (read.count("sample"), read.count("view")) == (2, VIEWS)
