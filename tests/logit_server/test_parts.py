"""Records whose views share a part: its own page, and requests for either part alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray

from cache_builder.format import Cache, open_cache
from cache_builder.format.codecs import Part
from cache_builder.format.wire import JSON, RECORDS, ROWS
from logit_server.pages import Pages
from logit_server.run import serving
from logit_server.served_caches import ServedCache
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from tests.caches import synthetic_logits
from tests.format.joint import write_joint_cache
from tests.logit_server.routes.test_records import refusal
from tests.logit_server.test_pages import CountingFolder

PATH = "/v1/caches/joint"
ROWS_ASKED = np.array([69, 3, 3, 40], np.uint32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache named "joint": 5 views in groups of 4, 70 rows in blocks of 32."""
    path = tmp_path_factory.mktemp("parts") / "joint.zarr"
    write_joint_cache(path, synthetic_logits(5, 70, 40), tile_views=4, tile_rows=32, name="joint")
    return path


@pytest.fixture(scope="module")
def cache(path: Path) -> Cache:
    return open_cache(path)


@pytest.fixture(scope="module")
def client(path: Path, cache_path: Path) -> Iterator[httpx2.Client]:
    with (
        serving(Settings(caches=(str(path), str(cache_path)), port=0)) as base,
        httpx2.Client(base_url=base) as opened,
    ):
        yield opened


def cut(records: NDArray[np.uint8], cache: Cache, part: Part) -> NDArray[np.uint8]:
    shared = cache.layout.shared_bytes
    return {Part.WHOLE: records, Part.SHARED: records[:, :shared], Part.OWN: records[:, shared:]}[part]


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("view", [0, 3, 4])
def test_rows_and_ranges_of_a_part(client: httpx2.Client, cache: Cache, view: int, part: Part) -> None:
    page = cut(cache.read_page(view), cache, part)
    asked = client.post(
        f"{PATH}/records?view={view}&part={part}",
        content=ROWS_ASKED.tobytes(),
        headers={"Content-Type": ROWS, "Accept": RECORDS},
    )
    assert asked.content == page[ROWS_ASKED].tobytes()
    ranged = client.get(f"{PATH}/views/{view}/records?start=20&stop=70&part={part}")
    assert ranged.content == page[20:70].tobytes()


@pytest.mark.parametrize("part", Part)
def test_a_reader_gives_a_part(cache: Cache, part: Part) -> None:
    page = cut(cache.read_page(2), cache, part)
    np.testing.assert_array_equal(cache.read_positions(2, range(30, 66), part=part), page[30:66])


def test_parts_have_tags_of_their_own(client: httpx2.Client) -> None:
    tags = {client.head(f"{PATH}/views/1/records?part={part}").headers["etag"] for part in Part}
    assert len(tags) == 3


def test_no_json_of_a_part(client: httpx2.Client) -> None:
    response = client.post(f"{PATH}/records?part=own", json={"rows": [1]}, headers={"Accept": JSON})
    assert RECORDS in refusal(response, 406, "NotAcceptableError")


def test_views_that_share_nothing_have_no_parts(client: httpx2.Client) -> None:
    response = client.get("/v1/caches/synthetic/views/0/records?part=own")
    assert "cache 'synthetic' do not" in refusal(response, 422, "RequestError")


def test_an_unknown_part(client: httpx2.Client) -> None:
    assert "part" in refusal(client.get(f"{PATH}/views/0/records?part=half"), 422, "RequestError")


def test_the_shared_part_is_loaded_and_kept_once(path: Path, tmp_path: Path) -> None:
    (served,) = open_catalog(Settings(caches=(str(path),)))
    folder = CountingFolder(tmp_path / "pages")
    rows = np.arange(70, dtype=np.uint32)

    async def body() -> None:
        pages = Pages(folder)
        async with pages.refreshing():
            for view in range(4):
                records = await pages.gather(served, view, rows)
                np.testing.assert_array_equal(records, served.cache.read_page(view))

    asyncio.run(body())
    # Three blocks of four views, and those that the views share.
    assert len(folder.loaded) == 3 * (4 + 1)
    assert kept_bytes(folder, served) == 70 * (4 * own_bytes(served) + served.cache.layout.shared_bytes)


def own_bytes(served: ServedCache) -> int:
    return served.record_bytes - served.cache.layout.shared_bytes


def kept_bytes(folder: CountingFolder, served: ServedCache) -> int:
    """What the folder counts against its budget."""
    return int.from_bytes((folder.folder / "budget.lock").read_bytes()[:8], "little")
