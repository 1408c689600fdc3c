"""--repair writes damaged tiles anew and keeps the rest; a store that is away is not damaged."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from cache_builder.build.launch import Launch
from cache_builder.build.pipeline import build
from cache_builder.console.progress import BuildProgress
from cache_builder.format import ConfigError, CorruptCacheError, FormatError, KDCacheError
from cache_builder.format.commits import INDEX_KEY
from tests.cache_builder.conftest import Build, settings_for
from tests.format.damage import contents


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shards(out: Path) -> list[Path]:
    return sorted(path for path in (out / "records/logits/view/c").rglob("*") if path.is_file())


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit of a shard": lambda out: flip(shards(out)[0]),
    "a shard that is gone": lambda out: shards(out)[1].unlink(),
    "a commit that is no JSON": lambda out: next((out / "commits").rglob("*.json")).write_bytes(b"{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tiles_are_written_anew_and_the_cache_is_what_it_was(
    run_build: Build, tmp_path: Path, damage: str
) -> None:
    run_build(tile_rows=40)
    out = tmp_path / "cache.zarr"
    before = contents(out)
    DAMAGES[damage](out)
    if "commit" not in damage:  # readers of a sealed cache take the index
        with pytest.raises(CorruptCacheError, match="--repair"):
            contents(out)
    result = run_build(tile_rows=40, repair=True)
    assert 0 < result.stats.done < 240  # of three views of 80 samples: one tile
    assert contents(out) == before


@pytest.mark.parametrize("data", [None, b"{", b'{"commits":[]}'])
def test_a_damaged_index_is_made_anew_from_the_commits(
    run_build: Build, tmp_path: Path, data: bytes | None
) -> None:
    run_build(tile_rows=40)
    out = tmp_path / "cache.zarr"
    before, index = contents(out), (out / INDEX_KEY).read_bytes()
    (out / INDEX_KEY).unlink() if data is None else (out / INDEX_KEY).write_bytes(data)
    for reading in (lambda: contents(out), lambda: run_build(tile_rows=40)):
        with pytest.raises(CorruptCacheError, match=r"commits/index is damaged: .* --repair"):
            reading()
    log = io.StringIO()
    assert run_build(tile_rows=40, repair=True, log=log).stats.done == 0
    assert "the index of the commits is damaged: it is made anew" in " ".join(log.getvalue().split())
    assert contents(out) == before
    assert (out / INDEX_KEY).read_bytes() == index


def test_a_shard_that_is_a_folder_is_named_and_nothing_is_left(run_build: Build, tmp_path: Path) -> None:
    run_build(tile_rows=40)
    shard = shards(tmp_path / "cache.zarr")[0]
    shard.unlink()
    shard.mkdir()
    with pytest.raises(KDCacheError, match=f"{shard.name} is a folder where the store has a file"):
        run_build(tile_rows=40, repair=True)
    assert not list((tmp_path / "cache.zarr").rglob("*.partial"))


def test_nothing_is_done_where_nothing_is_damaged(run_build: Build, tmp_path: Path) -> None:
    run_build()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache.zarr").rglob("*")}
    assert run_build(repair=True).was_finished
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache.zarr").rglob("*")} == written


def test_another_cache_is_not_touched(run_build: Build, tmp_path: Path) -> None:
    run_build()
    flip(shards(tmp_path / "cache.zarr")[0])
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "cache.zarr", copy)
    with pytest.raises(ConfigError, match="other settings"):
        run_build(views=2, repair=True)
    for path in copy.rglob("*.json"):
        assert (tmp_path / "cache.zarr" / path.relative_to(copy)).read_bytes() == path.read_bytes()


def test_several_processes_do_not_repair(photos: Path, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "c.zarr", photos, repair=True)
    with pytest.raises(ConfigError, match="one process"):
        build(settings, BuildProgress(Console(file=io.StringIO())), Launch(0, 2, name="launch"))


@pytest.mark.parametrize(
    "path", ["records/logits/view/zarr.json", "samples/label/zarr.json", "codec/logits/mean/c/0"]
)
def test_what_no_tile_holds_is_looked_at_and_said(run_build: Build, tmp_path: Path, path: str) -> None:
    run_build()
    flip(tmp_path / "cache.zarr" / path)
    with pytest.raises((CorruptCacheError, FormatError)):
        run_build(repair=True)
