"""What was read of a remote cache is near for whoever reads it next, and is never anything else."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cache_builder.console.progress import SILENT
from cache_builder.format import (
    CorruptCacheError,
    KDCacheError,
    StorageError,
    held,
    open_cache,
    stored_arrays,
)
from cache_builder.format.block_cache.keeper import BlockKeeper, block_keeper
from cache_builder.format.layout import record_arrays
from cache_builder.format.reader import Cache
from cache_builder.verify.report import Outcome
from cache_builder.verify.run import verify
from cache_builder.verify.settings import VerifySettings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.object_store import BUCKET, counted_http, objects, s3_server

VIEWS, ROWS, TILE_ROWS = 4, 96, 16
LOGITS = synthetic_logits(VIEWS, ROWS, 12)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as client:
        yield client


@pytest.fixture
def location(s3: Any, request: pytest.FixtureRequest) -> str:
    """A cache of six blocks and two view groups."""
    url = f"s3://{BUCKET}/{request.node.name.translate(str.maketrans('[] ', '---'))}.zarr"
    write_synthetic_cache(url, LOGITS, tile_rows=TILE_ROWS)
    return url


@pytest.fixture(params=["whole shards", "chunks"])
def unit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "chunks":
        monkeypatch.setattr(held, "WHOLE_BYTES", 0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDCACHE_BLOCK_CACHE", str(tmp_path / "blocks"))
    return tmp_path / "blocks"


def keeper() -> BlockKeeper:
    found = block_keeper()
    assert found is not None
    return found


def blocks(folder: Path) -> list[Path]:
    keeper().settle()
    return sorted(path for path in folder.glob("*/*") if path.is_file())


def of_data(seen: list[str]) -> list[str]:
    return [request for request in seen if "/c/" in request]


def read(cache: Cache, view: int = 1) -> bytes:
    return cache.read_rows(view, range(20, 60)).tobytes()


def test_what_was_read_once_is_not_fetched_again(location: str, folder: Path) -> None:
    expected = read(open_cache(location))
    assert blocks(folder)
    with counted_http() as seen:
        assert read(open_cache(location)) == expected
    assert not of_data(seen)
    assert keeper().counts.hits
    assert keeper().counts.hit_bytes


READER = """
import hashlib, sys
from cache_builder.format import held, open_cache
held.WHOLE_BYTES = int(sys.argv[2])
print(hashlib.sha256(open_cache(sys.argv[1]).read_page(1).tobytes()).hexdigest())
"""


def test_several_processes_share_what_they_read(location: str, folder: Path) -> None:
    command = [sys.executable, "-c", READER, location, str(held.WHOLE_BYTES)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {reader.communicate(timeout=250)[0] for reader in readers}
    assert len(found) == 1
    assert len(found.pop()) == 65
    with counted_http() as seen:
        after = subprocess.run(command, capture_output=True, text=True, check=True)
        assert open_cache(location).read_page(1).tobytes()
    assert len(after.stdout) == 65
    assert not of_data(seen)


@pytest.mark.usefixtures("unit")
def test_threads_that_ask_for_the_same_fetch_it_once(location: str) -> None:
    cache, gate = open_cache(location), threading.Barrier(6)
    _ = cache.codec

    def one(_: int) -> bytes:
        gate.wait()
        return read(cache)

    with counted_http() as seen, ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(one, range(6)))) == 1
    # The store may have answered some before others asked: then the disk has it, or has it a moment later.
    assert len(of_data(seen)) < 3 * len(set(of_data(seen)))


@pytest.mark.parametrize("change", ["flipped", "cut", "emptied"])
def test_a_damaged_file_is_noticed_fetched_again_and_replaced(
    location: str, folder: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read(open_cache(location))
    whole = {path: path.read_bytes() for path in blocks(folder)}
    for path, raw in whole.items():
        middle = len(raw) // 2
        changed = {
            "flipped": raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :],
            "cut": raw[:middle],
        }
        path.write_bytes(changed.get(change, b""))
    with caplog.at_level(logging.WARNING):
        assert read(open_cache(location)) == expected
    assert "damaged" in caplog.text
    assert {path: path.read_bytes() for path in blocks(folder)} == whole


def test_the_folder_may_be_deleted_while_it_is_read(location: str, folder: Path) -> None:
    expected = open_cache(location).read_page(1).tobytes()
    done = threading.Event()

    def delete() -> None:
        while not done.is_set():
            shutil.rmtree(folder, ignore_errors=True)

    deleting = threading.Thread(target=delete)
    deleting.start()
    try:
        for _ in range(5):
            assert open_cache(location).read_page(1).tobytes() == expected
    finally:
        done.set()
        deleting.join()


def test_the_limit_holds(location: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCACHE_BLOCK_CACHE_BYTES", "100000")
    cache = open_cache(location)
    for view in range(VIEWS):
        expected = cache.read_page(view).tobytes()
        assert 0 < sum(path.stat().st_size for path in blocks(folder)) <= 100_000
        assert open_cache(location).read_page(view).tobytes() == expected


def test_a_folder_that_cannot_be_used_fails_no_reading_and_is_said_once(
    location: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.joinpath("blocks").write_text("a file")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert len(read(open_cache(location)))
        keeper().settle()
    assert caplog.text.count("not kept") == 1
    assert str(folder) in caplog.text


def test_a_disk_that_is_full_fails_no_reading_and_is_said_once(
    location: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    cache = open_cache(location)
    _ = cache.codec
    keeper().settle()
    for group in [f"{number:02x}" for number in range(256)]:  # files stand where folders should
        shutil.rmtree(folder / group, ignore_errors=True)
        (folder / group).write_text("")
    with caplog.at_level(logging.WARNING):
        for view in range(VIEWS):
            read(cache, view)
            keeper().settle()
    assert caplog.text.count("not kept") == 1


@pytest.mark.usefixtures("unit")
def test_verify_reads_the_store_itself(location: str, s3: Any) -> None:
    cache = open_cache(location)
    for view in range(VIEWS):
        cache.read_page(view)
    _ = (cache.ids, cache.labels, cache.codec)
    keeper().settle()
    key = f"{location.removeprefix(f's3://{BUCKET}/')}/{record_arrays(cache.manifest)[0].shard_key(cache.tiles[0])}"
    stored = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=key, Body=stored[:-9] + bytes([stored[-9] ^ 1]) + stored[-8:])
    report = verify(VerifySettings(cache=location), SILENT)
    assert any(check.outcome is Outcome.DAMAGED for check in report.checks)
    with counted_http() as seen:
        verify(VerifySettings(cache=location), SILENT)
    shards = {f"GET /{BUCKET}/{location.rpartition('/')[2]}/{spec.shard_key(tile)}"
              for tile in cache.tiles for spec in record_arrays(cache.manifest)}  # fmt: skip
    assert shards <= set(seen)


@pytest.mark.usefixtures("unit")
def test_a_cache_that_took_the_place_of_another_is_not_mixed_up_with_it(
    location: str, s3: Any, tmp_path: Path
) -> None:
    """Neither is what the reader of the old one fetches of the new one, when the old one comes back."""
    write_synthetic_cache(tmp_path / "local.zarr", LOGITS, tile_rows=TILE_ROWS)
    local = open_cache(tmp_path / "local.zarr")
    old, prefix = open_cache(location), location.removeprefix(f"s3://{BUCKET}/")
    assert old.manifest.cache_id == local.manifest.cache_id
    assert read(old, 0) == read(local, 0)
    keeper().settle()
    stored = objects(prefix)
    for key in stored:
        s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/{key}")
    write_synthetic_cache(location, LOGITS[:, ::-1], tile_rows=TILE_ROWS)
    assert read(open_cache(location), 0) != read(local, 0)
    for view in range(VIEWS):
        with suppress(KDCacheError):  # it may notice
            old.read_page(view)
    keeper().settle()
    for key, body in stored.items():
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=body)
    again = open_cache(location)
    for view in range(VIEWS):
        assert again.read_page(view).tobytes() == local.read_page(view).tobytes()


def test_what_came_with_wrong_bytes_is_asked_for_again(location: str, folder: Path) -> None:
    """A flipped bit on the way passes no checksum of Zarr's; it must not stay near either."""
    expected = read(open_cache(location))
    cache = open_cache(location)
    near = cache._near
    assert near is not None
    for path in blocks(folder):
        path.unlink()
    # As if the network had changed it before it was kept with a checksum of its own.
    fetched = near._fetched

    async def spoilt(part: Any) -> memoryview | None:
        data = await fetched(part)
        if data is None or "/c/" not in part[0] or not spoils:
            return data
        raw = bytearray(data)
        raw[len(raw) // 2] ^= 1
        with near._lock:
            if part[0] in near._fresh:
                near._fresh[part[0]] = memoryview(raw)
        return memoryview(raw)

    spoils = True
    near._fetched = spoilt  # type: ignore[method-assign]
    with pytest.raises((StorageError, CorruptCacheError)):
        read(cache)
    spoils = False
    assert read(cache) == expected
    assert read(open_cache(location)) == expected


@pytest.mark.usefixtures("unit")
def test_blocks_of_a_walk_are_fetched_ahead_and_once(location: str) -> None:
    expected = open_cache(location).read_page(1)
    cache = open_cache(location)
    _ = cache.codec
    near = cache._near
    assert near is not None
    near._keeper = None  # so that only memory can have them
    arrays = len(record_arrays(cache.manifest))
    with counted_http() as seen:
        for block in range(2):
            cache.read_rows(1, cache.blocks.rows(block))
        deadline = time.monotonic() + 60
        while len(near._ready) < 2 * arrays and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.clear()
        rows = cache.blocks.rows(2)
        assert cache.read_rows(1, rows).tobytes() == expected[rows.start : rows.stop].tobytes()
        assert not [request for request in of_data(seen) if request.endswith("/2")]


@pytest.mark.usefixtures("unit")
def test_rows_here_and_there_fetch_nothing_ahead(location: str) -> None:
    cache = open_cache(location)
    near = cache._near
    assert near is not None
    for block in (0, 2, 1, 5, 3):
        cache.read_rows(1, cache.blocks.rows(block))
        cache.read_rows(0, cache.blocks.rows(block))
    assert not near._ready
    assert not near._ahead._threads


def test_parts_of_a_large_shard_are_not_kept(
    location: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit says what they must be."""
    _ = open_cache(location).codec
    headers = blocks(folder)
    monkeypatch.setattr(held, "WHOLE_BYTES", 0)
    read(open_cache(location))
    assert blocks(folder) == headers != []


@pytest.mark.usefixtures("unit")
def test_what_was_wrong_in_the_store_for_a_while_does_not_outlast_that(location: str, s3: Any) -> None:
    """Shards of another block have checksums of their own, which are right."""
    expected = open_cache(location).read_page(1).tobytes()
    shutil.rmtree(keeper()._folder.path)
    cache, prefix = open_cache(location), location.removeprefix(f"s3://{BUCKET}/")
    stored = objects(prefix)
    for spec in record_arrays(cache.manifest):
        ours, theirs = (spec.shard_key(cache.tiles[block]) for block in (0, 1))
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{ours}", Body=stored[theirs])
    for view in range(VIEWS):
        with suppress(KDCacheError):
            cache.read_page(view)
    keeper().settle()
    for key, body in stored.items():
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=body)
    assert open_cache(location).read_page(1).tobytes() == expected


def test_an_answer_of_another_length_is_not_decoded(
    location: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a proxy gives an old object, and the store tells the size of the new one."""
    cache, prefix = open_cache(location), location.removeprefix(f"s3://{BUCKET}/")
    spec = record_arrays(cache.manifest)[0]
    write_synthetic_cache(f"{location}-other", LOGITS[:, ::-1], tile_rows=TILE_ROWS)
    key = spec.shard_key(cache.tiles[0])
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=objects(f"{prefix}-other")[key] + b"more")
    sizes = {spec.shard_key(tile): cache.commits[tile.key].shards[spec.path].bytes for tile in cache.tiles}
    monkeypatch.setattr(stored_arrays, "object_sizes", lambda _, keys: [sizes[key] for key in keys])
    with pytest.raises(StorageError, match="bytes came of an object that has"):
        cache.read_rows(0, range(4))


def test_a_process_that_was_forked_is_refused_and_does_not_wait(location: str) -> None:
    cache = open_cache(location)
    for block in range(2):
        cache.read_rows(1, cache.blocks.rows(block))
    child = os.fork()
    if child == 0:
        try:
            cache.read_rows(1, cache.blocks.rows(2))
        except StorageError:
            os._exit(0)
        os._exit(1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


def test_a_cache_travels_to_other_processes(location: str) -> None:
    cache = open_cache(location)
    assert read(pickle.loads(pickle.dumps(cache))) == read(cache)
