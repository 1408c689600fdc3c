"""What takes the name of a run's folder is not believed, unless it is this user's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from logit_server.private_folder import make_private
from logit_server.wishes import Wishes


def test_it_is_made_for_this_user_alone_and_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        make_private(tmp_path / "run")
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def open_to_a_group(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o730)


def a_link(folder: Path) -> None:
    folder.with_name("other").mkdir(mode=0o700)
    folder.symlink_to(folder.with_name("other"))


def a_file(folder: Path) -> None:
    folder.touch()


def of_another_user(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    if os.geteuid() != 0:
        pytest.skip("only root gives a folder away")
    os.chown(folder, 12345, 12345)


@pytest.mark.parametrize("take", [open_to_a_group, a_link, a_file, of_another_user])
def test_what_others_could_change_is_refused(tmp_path: Path, take: Callable[[Path], None]) -> None:
    folder = tmp_path / "run"
    take(folder)
    with pytest.raises(OSError, match=r"others could change|exists"):
        make_private(folder)
    Wishes(folder).add()
    assert not (folder / "reloads").exists()
