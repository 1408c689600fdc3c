from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cache_builder.format.durable import create_file, overwrite_file, take_name, write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    for body in (b"first", b"second"):
        write_file(tmp_path / "a", body)
        assert (tmp_path / "a").read_bytes() == body
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_went_away_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "gone" / "a", b"x")
    assert not (tmp_path / "gone").exists()


def test_a_failing_write_leaves_what_was_there(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"first")
    (tmp_path / "half").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "a", b"second", tmp_path / "half")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_folder_takes_its_name_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "making").mkdir()
    (tmp_path / "making" / "a").write_bytes(b"x")
    take_name(tmp_path / "making", tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    (tmp_path / "making").mkdir()
    with pytest.raises(OSError, match="not empty"):
        take_name(tmp_path / "making", tmp_path / "final")


def test_a_file_is_created_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    assert create_file(path, b"one")
    assert not create_file(path, b"two")
    assert path.read_bytes() == b"one"
    with pytest.raises(FileNotFoundError):
        create_file(tmp_path / "not there" / "a", b"")

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    assert not create_file(path, b"two")
    assert create_file(tmp_path / "b", b"two")
    assert (tmp_path / "b").read_bytes() == b"two"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a", "b"]


def test_only_what_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    overwrite_file(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    with pytest.raises(FileNotFoundError):
        overwrite_file(tmp_path / "b", b"two")
    assert not (tmp_path / "b").exists()
