"""A file is there wholly or not at all, and what a killed process left of it goes."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.interchange.atomic import replaced
from tests.format.locks.test_lock import held_elsewhere


def written(out: Path, text: str = "new", force: bool = False) -> None:
    with replaced(out, force) as partial:
        partial.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kills", [1, 3])
def test_what_killed_ones_left_goes_with_the_next(tmp_path: Path, kills: int) -> None:
    for _ in range(kills):
        if (child := os.fork()) == 0:
            with replaced(tmp_path / "e.npz", False) as partial:
                partial.write_text("half")
                os._exit(9)
        os.waitpid(child, 0)
    assert names(tmp_path) != []
    foreign = [f".f.npz.{uuid.uuid4().hex}.partial", ".e.npz.partial", f"e.npz.{uuid.uuid4().hex}.partial"]
    for name in foreign:
        (tmp_path / name).write_text("precious")
    written(tmp_path / "e.npz")
    assert names(tmp_path) == sorted([*foreign, "e.npz"])


def test_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    partial = tmp_path / f".e.npz.{uuid.uuid4().hex}.partial"
    partial.write_text("half")
    with (
        held_elsewhere(tmp_path / "e.npz") as holder,
        pytest.raises(ConfigError, match=rf"e\.npz is being written by process {holder.pid}"),
    ):
        written(tmp_path / "e.npz")
    assert partial.read_text() == "half"


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_one(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.npz", tmp_path / "link.npz"
    link.symlink_to(real)
    if exists:
        real.write_text("old")
        with pytest.raises(ConfigError, match="exists already"):
            written(link)
    written(link, force=exists)
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert names(real.parent) == ["real.npz"]


def test_a_folder_that_goes_away_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "disk"

    def remounted() -> None:
        with replaced(folder / "e.npz", False) as partial:
            folder.rename(tmp_path / "gone")
            folder.mkdir()
            partial.write_text("half")

    with pytest.raises(KDCacheError, match="removed, renamed or unmounted"):
        remounted()
    assert names(folder) == []
