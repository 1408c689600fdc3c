"""Reader processes give what the worker itself would read, errors included, and never outlive it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

from cache_builder.format import Cache, CorruptCacheError
from logit_server.indexes import Indexes
from logit_server.page_folder import PageFolder
from logit_server.readers import Readers
from logit_server.run import serving
from logit_server.served_caches import ServedCache
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from logit_server.storage import read_block


@pytest.fixture
def own(own_cache: Path) -> ServedCache:
    (served,) = open_catalog(Settings(caches=(str(own_cache),)))
    return served


@pytest.fixture
def readers() -> Iterator[Readers]:
    made = Readers(1)
    yield made
    made.close()


def children() -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "reader_process"], capture_output=True)
    return [int(line) for line in found.stdout.split()]


def test_blocks_and_indexes_are_those_that_the_worker_reads(readers: Readers, own: ServedCache) -> None:
    for block in range(len(own.blocks)):
        np.testing.assert_array_equal(readers.read_block(own, 2, block), read_block(own, 2, block))
    found = readers.read_index(own)
    assert found is not None
    for ours, theirs in zip(own.cache.ids.hash_index, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(children()) == 1


def test_damage_is_named_as_the_worker_names_it(readers: Readers, own: ServedCache) -> None:
    for shard in Path(own.cache.location, "records").rglob("*"):
        if shard.is_file():
            shard.write_bytes(b"damaged")

    def said(read: Callable[..., object]) -> list[str]:
        errors = []
        for block in range(len(own.blocks)):
            with pytest.raises(CorruptCacheError) as raised:
                read(own, 0, block)
            errors.append(str(raised.value))
        return errors

    assert said(readers.read_block) == said(read_block)


def test_a_process_that_is_killed_costs_no_request(readers: Readers, own: ServedCache) -> None:
    expected = read_block(own, 0, 1)
    np.testing.assert_array_equal(readers.read_block(own, 0, 1), expected)
    (killed,) = children()
    os.kill(killed, signal.SIGKILL)
    for _ in range(2):
        np.testing.assert_array_equal(readers.read_block(own, 0, 1), expected)
    assert killed not in children()


def test_pages_are_filled_with_what_processes_read(
    readers: Readers, own: ServedCache, cache: Cache, tmp_path: Path
) -> None:
    folder = PageFolder(tmp_path / "pages", 2**30, readers)
    page = folder.open(own, 1)
    for block in range(len(own.blocks)):
        folder.load(own, 1, page, block)
    rows = np.arange(100, dtype=np.uint32)
    found = page.take(rows)
    assert found is not None
    np.testing.assert_array_equal(found, cache.read_page(1)[rows])


def test_a_server_with_processes_answers_the_same_and_ends_them(cache_path: Path, cache: Cache) -> None:
    with serving(Settings(caches=(str(cache_path),), port=0, readers=1)) as base:
        records = f"{base}/v1/caches/synthetic/records?view=1"
        ids = [cache.ids[row] for row in (99, 0, 5)]
        answer = httpx2.post(records, json={"ids": ids}, timeout=120)
        assert answer.content == cache.read_page(1)[[99, 0, 5]].tobytes()
        assert len(children()) == 1
    assert children() == []


def test_it_ends_with_a_worker_that_is_killed(cache_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from logit_server.readers import Readers\n"
        "from logit_server.shelf import open_catalog\n"
        "from logit_server.settings import Settings\n"
        "(served,) = open_catalog(Settings(caches=(sys.argv[1],)))\n"
        "readers = Readers(1)\n"
        "readers.read_block(served, 0, 0)\n"
        "print(readers._idle[0]._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(cache_path)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        reader = int(worker.stdout.readline())
        worker.kill()
    for _ in range(600):
        if not Path(f"/proc/{reader}").exists() or "Z" in Path(f"/proc/{reader}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    pytest.fail("the reader lives on")


def test_an_index_is_made_once_and_kept(own: ServedCache, readers: Readers) -> None:
    async def wait() -> None:
        indexes = Indexes(readers)
        async with indexes.running([own]):
            await asyncio.gather(*(indexes.ready(own) for _ in range(5)))

    asyncio.run(wait())
    assert "hash_index" in vars(own.cache.ids)
    assert own.cache.rows_for([own.cache.ids[17]]).tolist() == [17]
