"""The limit of a folder of blocks holds, and what was unused for longest goes first."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from cache_builder.format.block_cache.folder import BlockFolder, BlockName, disk_bytes
from cache_builder.format.block_cache.room import Room

SIZE = disk_bytes(10_000)


def name(number: int) -> BlockName:
    return BlockName.of("1", "s3://b/c", str(number), None)


@pytest.fixture
def folder(tmp_path: Path) -> BlockFolder:
    return BlockFolder(tmp_path)


def room(folder: BlockFolder, blocks: int, *, spares_disk: bool = False) -> Room:
    return Room(folder, blocks * SIZE, spares_disk=spares_disk)


def put(room: Room, folder: BlockFolder, number: int) -> bool:
    is_room = room.take(SIZE)
    if is_room:
        folder.write(name(number), bytes(10_000))
        (path,) = folder.path.rglob(name(number).file)
        os.utime(path, (number, number))
    return is_room


def numbers(folder: BlockFolder) -> list[int]:
    return sorted(int(file.used) for file in folder.files())


def test_the_limit_holds_and_the_oldest_go(folder: BlockFolder) -> None:
    here = room(folder, 20)
    for number in range(100):
        assert put(here, folder, number)
        assert len(numbers(folder)) <= 20
    found = numbers(folder)
    assert found == list(range(found[0], 100))
    assert len(found) >= 18


def test_what_lay_there_before_and_what_others_write_counts(folder: BlockFolder) -> None:
    rooms = [room(folder, 64) for _ in range(4)]
    for number in range(400):
        assert put(rooms[number % 4], folder, number)
        assert len(numbers(folder)) <= 64 + 4 * 2  # what the others wrote since the last look
    assert put(room(folder, 10), folder, 400)
    assert len(numbers(folder)) <= 10


def test_what_is_larger_than_the_limit_is_not_kept_and_removes_nothing(folder: BlockFolder) -> None:
    here = room(folder, 5)
    for number in range(5):
        put(here, folder, number)
    assert not here.take(6 * SIZE)
    assert numbers(folder) == list(range(5))


def test_while_another_process_removes_nothing_comes_beyond_the_limit(folder: BlockFolder) -> None:
    here = room(folder, 3)
    for number in range(3):
        assert put(here, folder, number)
    with (folder.path / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not put(here, folder, 3)
    assert put(here, folder, 4)


def test_by_default_at_least_as_much_of_the_disk_stays_free(
    folder: BlockFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10 * SIZE
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))  # type: ignore[attr-defined]
    here = room(folder, 1000, spares_disk=True)
    for number in range(30):
        free = 10 * SIZE - sum(file.size for file in folder.files())
        put(here, folder, number)
    assert len(numbers(folder)) in (4, 5)
