"""A file in the wrong place is named by what it is, wherever one is read."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_builder.console.file_kinds import is_text, kind_of
from cache_builder.datasets import open_source
from cache_builder.datasets.class_map import read_class_map
from cache_builder.format import KDCacheError
from cache_builder.interchange.id_lists import read_ids
from cache_builder.teachers.weight_files import read_file


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind, whose name says nothing of it."""
    root = tmp_path_factory.mktemp("shelf")
    (root / "folder").mkdir()
    Image.new("RGB", (4, 4)).save(root / "png", format="PNG")
    Image.new("RGB", (4, 4)).save(root / "jpeg", format="JPEG")
    with zipfile.ZipFile(root / "zip", "w") as archive:
        archive.writestr("a", "b")
    with tarfile.open(root / "tar", "w") as tar:
        tar.add(root / "png", "a.png")
    with (root / "npy").open("wb") as file:
        np.save(file, np.arange(3))
    (root / "text").write_text("path,label\na.png,cät\n")
    (root / "html").write_text("<!DOCTYPE html>\n<html>not found</html>")
    (root / "json").write_text('{"a": 1}')
    (root / "utf16").write_text("wug\n", encoding="utf-16")
    (root / "bytes").write_bytes(bytes(range(256)))
    (root / "empty").touch()
    return root


KINDS = {
    "folder": "a folder", "png": "a PNG picture", "jpeg": "a JPEG picture", "tar": "a tar file",
    "zip": "a zip archive (also what torch.save writes)", "npy": "a NumPy array", "text": "a text",
    "html": "an HTML page", "json": "a JSON text", "utf16": "a text in UTF-16", "empty": "an empty file",
    "bytes": "a file of bytes that are no text", "nowhere": "nothing",
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_kinds(shelf: Path, name: str, kind: str) -> None:
    assert kind_of(shelf / name) == kind
    assert is_text(shelf / name) == (name in ("text", "html", "json"))


def test_a_character_cut_in_two_is_still_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a" * 4095 + "ä")
    assert kind_of(tmp_path / "a") == "a text"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("csv:folder", "is a folder, expected a table .*imagefolder:"),
        ("csv:png", "is a PNG picture, expected a table"),
        ("csv:zip", "is a zip archive"),
        ("parquet:text", "is a text, expected a Parquet table"),
        ("imagefolder:png", "is a PNG picture, expected a folder"),
        ("imagefolder:zip", "is a zip archive"),
        ("webdataset:folder", "is a folder: write tar files as a pattern"),
        ("webdataset:zip", "no tar file but a zip archive"),
        ("webdataset:png", "no tar file but a PNG picture"),
        ("imagefolder:pictures?classes=folder", "classes=.*it is a folder"),
        ("imagefolder:pictures?classes=png", "classes=.*the file is a PNG picture"),
    ],
)
def test_data(shelf: Path, spec: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf)
    (shelf / "pictures" / "wug").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(shelf / "pictures" / "wug" / "a.png")
    with pytest.raises(KDCacheError, match=said):
        open_source(spec)


@pytest.mark.parametrize(
    ("name", "said"),
    [("text", "it is a text, and no"), ("html", "a web page"), ("json", "it is a JSON text")],
)
def test_weights_that_are_text_are_told_so(shelf: Path, name: str, said: str) -> None:
    with pytest.raises(KDCacheError, match=said):
        read_file(shelf / name)


def test_lists(shelf: Path) -> None:
    with pytest.raises(KDCacheError, match="--ids x is a folder"):
        read_ids("--ids x", shelf / "folder", 3)
    with pytest.raises(KDCacheError, match="the file is a PNG picture"):
        read_class_map(str(shelf / "png"))


def test_one_rule_for_blank_lines(tmp_path: Path) -> None:
    """Lines of nothing but blanks are none, in every list that people write."""
    (tmp_path / "ids.txt").write_text("\n a\n\n  \nb\r\n\n")
    assert read_ids("--ids", tmp_path / "ids.txt", 2) == [" a", "b"]
    (tmp_path / "map.txt").write_text("\nwug = 3\n  \nblicket = 1\n\n")
    assert read_class_map(str(tmp_path / "map.txt")) == {"wug": "3", "blicket": "1"}
    for name in ("wug", "blicket"):
        (tmp_path / "p" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "p" / name / "a.png")
    (tmp_path / "classes.txt").write_text("\nwug\n\n  \nblicket\n")
    assert open_source(f"imagefolder:{tmp_path / 'p'}?classes={tmp_path / 'classes.txt'}").class_names == (
        "wug",
        "blicket",
    )
