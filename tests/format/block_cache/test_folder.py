"""A folder of blocks: what is read from it is what was written to it, whatever happens to the files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache_builder.format.block_cache.folder import BlockFolder, BlockName, DamagedBlockError

DATA = bytes(range(256)) * 40


def name(key: str = "k", part: range | None = None, cache_id: str = "1", url: str = "s3://b/c") -> BlockName:
    return BlockName.of(cache_id, url, key, part)


@pytest.fixture
def folder(tmp_path: Path) -> BlockFolder:
    folder = BlockFolder(tmp_path / "blocks")
    assert folder.problem() is None
    return folder


def files(folder: BlockFolder) -> list[Path]:
    return [path for path in folder.path.rglob("*") if path.is_file()]


def test_a_block_is_found_by_its_own_name_alone(folder: BlockFolder) -> None:
    folder.write(name(part=range(3, 9)), DATA)
    assert folder.read(name(part=range(3, 9))) == DATA
    others = [
        name(), name(part=range(3, 10)), name("j", range(3, 9)),
        name(part=range(3, 9), cache_id="2"), name(part=range(3, 9), url="s3://b/d"),
    ]  # fmt: skip
    assert [folder.read(other) for other in others] == [None] * len(others)


def test_it_is_for_its_owner_alone(folder: BlockFolder) -> None:
    folder.write(name(), DATA)
    modes = {path.stat().st_mode & 0o077 for path in [folder.path, *folder.path.rglob("*")]}
    assert modes == {0}


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    assert "other users may write to it" in (BlockFolder(tmp_path).problem() or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_another_user_is_refused_and_so_are_his_files(tmp_path: Path) -> None:
    folder = BlockFolder(tmp_path)
    tmp_path.chmod(0o700)
    folder.write(name(), DATA)
    (path,) = files(folder)
    os.chown(path, 12345, 12345)
    assert folder.read(name()) is None
    os.chown(tmp_path, 12345, 12345)
    assert "belongs to another user" in (folder.problem() or "")


@pytest.mark.parametrize("place", [0, 8, 16, 16 + len(DATA) // 2, -1])
def test_a_flipped_bit_is_noticed_and_the_file_goes(folder: BlockFolder, place: int) -> None:
    folder.write(name(), DATA)
    (path,) = files(folder)
    raw = bytearray(path.read_bytes())
    raw[place] ^= 4
    path.write_bytes(raw)
    with pytest.raises(DamagedBlockError):
        folder.read(name())
    assert folder.read(name()) is None
    assert not files(folder)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 5000])
def test_a_file_that_was_cut_short_is_noticed(folder: BlockFolder, length: int) -> None:
    folder.write(name(), DATA)
    (path,) = files(folder)
    os.truncate(path, length)
    with pytest.raises(DamagedBlockError):
        folder.read(name())


def test_the_file_of_another_block_is_noticed(folder: BlockFolder) -> None:
    folder.write(name("a"), DATA)
    (path,) = files(folder)
    folder.write(name("b"), DATA)
    (other,) = {*files(folder)} - {path}
    shutil.copyfile(path, other)
    with pytest.raises(DamagedBlockError):
        folder.read(name("b"))


def test_an_object_is_forgotten_with_all_its_parts_and_no_other(folder: BlockFolder) -> None:
    for one in (name(), name(part=range(5)), name("j")):
        folder.write(one, DATA)
    folder.forget([name().object])
    assert folder.read(name()) is None
    assert folder.read(name(part=range(5))) is None
    assert folder.read(name("j")) == DATA


def test_the_user_may_delete_it_at_any_time(folder: BlockFolder) -> None:
    folder.write(name(), DATA)
    shutil.rmtree(folder.path)
    assert folder.read(name()) is None
    assert list(folder.files()) == []
    folder.forget([name().object])
    folder.write(name(), DATA)
    assert folder.read(name()) == DATA


def test_what_is_used_is_younger_than_what_is_not(folder: BlockFolder) -> None:
    long_ago = time.time() - 3600
    for key in "ab":
        folder.write(name(key), DATA)
    for path in files(folder):
        os.utime(path, (long_ago, long_ago))
    folder.read(name("a"))
    used = {Path(file.path).name: file.used for file in folder.files()}
    assert used[name("a").file] > long_ago + 3000
    assert used[name("b").file] == pytest.approx(long_ago)


def test_what_a_writer_left_behind_is_removed_and_is_no_block(folder: BlockFolder) -> None:
    folder.write(name(), DATA)
    group = files(folder)[0].parent
    (group / "tmpold.part").write_bytes(DATA)
    (group / "tmpnew.part").write_bytes(DATA)
    (group / "notes.txt").write_bytes(DATA)
    long_ago = time.time() - 3600
    os.utime(group / "tmpold.part", (long_ago, long_ago))
    assert {Path(file.path).name for file in folder.files()} == {name().file, "tmpnew.part"}
    assert not (group / "tmpold.part").exists()
    assert (group / "notes.txt").exists()  # it is not ours


WRITER = """
import sys
from pathlib import Path
from cache_builder.format.block_cache.folder import BlockFolder, BlockName
folder = BlockFolder(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    data = bytes([number % 251]) * 300_000
    folder.write(BlockName.of("1", "s3://b/c", str(number % 20), None), data)
"""


def test_writers_that_are_killed_at_any_instant_leave_no_wrong_block(folder: BlockFolder) -> None:
    for turn in range(6):
        command = [sys.executable, "-c", WRITER, str(folder.path)]
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(0.02 + 0.013 * turn)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        found = [folder.read(name(str(number))) for number in range(20)]  # raises for a wrong one
        assert all(block is None or bytes(block) == bytes(block[:1]) * 300_000 for block in found)
    assert any(block is not None for block in found)
