"""A disk that fills up, for real: a small tmpfs. Skipped where this user may not mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache_builder.build.recorder import BatchRecorder
from cache_builder.build.tile_runner import TileRunner
from cache_builder.format.reader import open_cache
from cache_builder.format.root import read_manifest
from tests.cache_builder.cli.test_app import invoke
from tests.cache_builder.command import arguments
from tests.cache_builder.conftest import Build
from tests.cache_builder.trees import contents

DISK_BYTES = 4 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of four mebibytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves ``leave`` bytes free."""
    ballast = disk / "ballast"
    status = os.statvfs(disk)
    ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - leave))
    return ballast


def space_of(root: Path) -> int:
    """Bytes that a store takes on a tmpfs, where every file and no folder fills whole pages."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(-(-path.stat().st_size // page) * page for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("percent", [0, 15, 40, 70, 98])
def test_told_and_continued_once_there_is_space(
    disk: Path, photos: Path, by_command: Path, percent: int
) -> None:
    """Full before the store, in its header, between tiles, near the end."""
    out = disk / "cache.zarr"
    ballast = fill(disk, space_of(by_command) * percent // 100)
    command = arguments(out, photos, teacher="slow", workers=0)
    ended = invoke(*command)
    assert ended.exit_code == 1
    assert "error: the disk is full" in ended.stderr
    assert "free space and run the same command again; committed work is kept" in ended.stderr
    assert "Traceback" not in ended.output
    kept = {}
    if read_manifest(out) is not None:
        cache = open_cache(out, allow_partial=True)
        kept = cache.commits
        assert list(cache.damaged_shards()) == []
        assert cache.manifest.cache_id is None
    else:
        assert [path.name for path in disk.iterdir()] == ["ballast"]
    ballast.unlink()
    assert invoke(*command).exit_code == 0
    assert contents(out) == contents(by_command)
    assert kept.items() <= open_cache(out).commits.items()


def test_a_full_disk_is_told_before_the_next_tile_is_through(
    disk: Path, run_build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tile of a large teacher takes hours: nobody should compute one for a disk that is full."""
    encoded = 0
    record, run_tile = BatchRecorder.record, TileRunner._run_tile
    runners: list[TileRunner] = []

    def noted(self: TileRunner, *arguments: object) -> object:
        runners.append(self)
        return run_tile(self, *arguments)  # type: ignore[arg-type]

    def counted(self: BatchRecorder, *arguments: object) -> object:
        nonlocal encoded
        encoded += 1
        if encoded == 3:
            fill(disk, 0)
        if encoded == 11:
            pending = runners[-1]._pending
            assert pending is not None
            assert isinstance(pending.exception(), OSError)
        return record(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TileRunner, "_run_tile", noted)
    monkeypatch.setattr(BatchRecorder, "record", counted)
    # Tiles of 40 rows, batches of five rows (15 images): eight batches a tile.
    with pytest.raises(OSError, match="No space left"):
        run_build(out=disk / "cache.zarr", tile_rows=40, batch_size=15, top_k=40, views=3)
    # Told at once when the writer failed early, at the latest by the third batch of the next tile.
    assert 8 < encoded <= 11
