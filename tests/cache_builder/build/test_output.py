"""Where a build writes: links, read-only disks, and what goes away in the middle."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_builder.build import begin
from cache_builder.build.output import check_output
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.reader import open_cache
from cache_builder.format.root import read_manifest
from cache_builder.format.writer import CacheWriter
from tests.cache_builder.conftest import Build
from tests.cache_builder.trees import contents
from tests.caches import synthetic_logits, write_synthetic_cache


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["to a folder", "to nothing yet", "to another disk", "file URL"])
def test_a_link_leads_to_the_cache_and_stays(run_build: Build, tmp_path: Path, disk: Path, kind: str) -> None:
    real = (disk if kind == "to another disk" else tmp_path) / "real.zarr"
    if kind in ("to a folder", "to another disk"):
        real.mkdir()
    link = tmp_path / "link.zarr"
    link.symlink_to(real)
    out: Any = f"file://{link}" if kind == "file URL" else link
    first = run_build(out=out, name="same")
    again = run_build(out=out, name="same")
    assert again.was_finished
    assert again.manifest.cache_id == first.manifest.cache_id == open_cache(real).manifest.cache_id
    assert link.is_symlink()
    assert not [name for name in names(real.parent) if name.startswith(".")]


def test_a_finished_cache_on_a_read_only_disk(run_build: Build, disk: Path) -> None:
    run_build(out=disk / "c.zarr")
    run_build(out=disk / "part.zarr", rows="0:32")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert run_build(out=disk / "c.zarr").was_finished
    with pytest.raises(
        ConfigError, match=r"part\.zarr has yet to be built .* nothing can be written to .*disk"
    ):
        run_build(out=disk / "part.zarr")
    with pytest.raises(ConfigError, match=r"c\.zarr has yet to be built as this command says"):
        run_build(out=disk / "c.zarr", views=4)


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_an_output_that_goes_away_is_told_and_not_made_again(
    run_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    out = tmp_path / "deep" / "c.zarr"
    write = CacheWriter.write_tile
    written = 0

    def vanishing(self: CacheWriter, *arguments: Any) -> int:
        nonlocal written
        written += 1
        if written == 2:
            if how == "removed":
                shutil.rmtree(out)
            else:
                out.rename(tmp_path / "elsewhere")
            if how == "replaced":
                out.mkdir()
        return write(self, *arguments)

    monkeypatch.setattr(CacheWriter, "write_tile", vanishing)
    with pytest.raises(KDCacheError, match=r"c\.zarr is gone: .* bring it back and run the same command"):
        run_build(out=out)
    assert names(out.parent) == (["c.zarr"] if how == "replaced" else [])
    assert how != "replaced" or names(out) == []
    if how == "renamed":
        monkeypatch.setattr(CacheWriter, "write_tile", write)
        (tmp_path / "elsewhere").rename(out)
        run_build(out=out, name="c")
        assert contents(out) == contents(run_whole(run_build, tmp_path))


def run_whole(run_build: Build, tmp_path: Path) -> Path:
    run_build(out=tmp_path / "whole.zarr", name="c")
    return tmp_path / "whole.zarr"


@pytest.mark.parametrize("how", ["removed", "unmounted"])
def test_a_folder_that_goes_away_before_the_store_is_created(
    run_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder = tmp_path / "mounted"
    render = begin.render_probe

    def vanishing(*arguments: Any, **options: Any) -> Any:
        folder.rename(tmp_path / "disk")
        if how == "unmounted":
            folder.mkdir()
        return render(*arguments, **options)

    monkeypatch.setattr(begin, "render_probe", vanishing)
    with pytest.raises(KDCacheError, match="mounted removed, renamed or unmounted"):
        run_build(out=folder / "c.zarr")
    assert not folder.exists() or names(folder) == []
    assert read_manifest(tmp_path / "disk" / "c.zarr") is None


def test_no_cache_within_a_cache(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(1, 40, 40))
    with pytest.raises(ConfigError, match=r"lies within another Zarr store, .*c\.zarr"):
        check_output(str(tmp_path / "c.zarr" / "deep" / "d.zarr"))


def test_a_mounted_disk_itself_is_no_cache(disk: Path) -> None:
    with pytest.raises(ConfigError, match="choose a folder in it"):
        check_output(str(disk))
