"""What a data set does not read of what lies there is counted, with a name, for every kind of data."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_builder.datasets import LimitedSource, left_out_of, open_source
from cache_builder.datasets.left_out import LeftOut
from cache_builder.format import open_cache
from cache_builder.look.inspect import class_facts
from tests.cache_builder.conftest import Build


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def put(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def folder(root: Path) -> Path:
    """Two classes of one picture each, beside everything that is none."""
    for name in ("cat/a.png", "dog/b.png", "cat/.hidden.png", ".trash/c.png"):
        put(root / name, picture())
    for name in ("cat/note.txt", "cat/b.heic", "cat/d.HEIC", "README", "dog/.DS_Store", "empty/only.txt"):
        put(root / name)
    os.mkfifo(root / "dog" / "pipe.png")
    (root / "dog" / "back").symlink_to(root)
    put(root / "__MACOSX" / "x.txt")
    put(root / "built.zarr" / "zarr.json")
    put(root / "built.zarr" / "c" / "0")
    return root


def test_a_folder_tells_all_that_it_leaves_out(tmp_path: Path) -> None:
    source = open_source(f"imagefolder:{folder(tmp_path)}")
    assert list(source.ids) == ["cat/a.png", "dog/b.png"]
    said = left_out_of(source)
    assert "5 x file that is no picture by its ending (the first: '" in said
    assert "by ending: 2 .heic, 2 .txt, 1 without an ending" in said
    assert "1 x hidden picture (the first: 'cat/.hidden.png')" in said
    assert "1 x hidden folder (the first: '.trash')" in said
    assert "1 x hidden file (the first: 'dog/.DS_Store')" in said
    assert "1 x pipe, socket or device (the first: 'dog/pipe.png')" in said
    assert "1 x link back to a folder that it is in (the first: 'dog/back/')" in said
    assert "3 x folder without a picture (the first: " in said
    assert left_out_of(LimitedSource(source, 1)) == said


def test_a_folder_that_is_all_pictures_leaves_nothing_out(photos: Path) -> None:
    assert left_out_of(open_source(f"imagefolder:{photos}")) == ""


def test_a_folder_of_other_files_alone_says_which(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "a.heic")
    with pytest.raises(Exception, match=r"holds no images .*; left out: 1 x file .*'cat/a\.heic'.*1 \.heic"):
        open_source(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_shards_tell_the_members_that_they_leave_out(tmp_path: Path, form: int) -> None:
    members = {
        "0.png": picture(), "0.cls": b"1", "0.txt": b"a cat", "0.npy": b"x",
        "1.png": picture(), "1.cls": b"0", "1.txt": b"a dog",
        "README": b"x", "._0.png": b"x", "ø" * 60 + "/.x": b"x",
    }  # fmt: skip
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        tar.addfile(link)
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert list(source.ids) == ["a/0", "a/1"]
    said = left_out_of(source)
    assert "3 x member beside a picture (the first: 'a/0.txt')" in said
    assert "by ending: 2 .txt, 1 .npy" in said
    assert "1 x member without an ending (the first: 'a.tar/README')" in said
    assert "2 x hidden member (the first: 'a.tar/._0.png')" in said
    assert "1 x member that is no plain file (the first: 'a.tar/2.png')" in said


def test_the_label_that_is_read_is_not_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in {"0.png": picture(), "0.json": json.dumps({"label": 1}).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert left_out_of(open_source(f"webdataset:{tmp_path}/a.tar")) == ""
    assert "1 .json" in left_out_of(open_source(f"webdataset:{tmp_path}/a.tar?label="))


def test_a_table_tells_its_empty_lines(tmp_path: Path) -> None:
    put(tmp_path / "a.png", picture())
    (tmp_path / "a.csv").write_text("path,label\n\na.png,0\n\n")
    assert left_out_of(open_source(f"csv:{tmp_path}/a.csv")) == "2 x empty line (the first: 'line 2')"


def test_a_build_tells_it_first_and_a_cache_keeps_it(tmp_path: Path, run_build: Build) -> None:
    log = io.StringIO()
    root = folder(tmp_path / "data")
    (root / "empty" / "only.txt").unlink()
    run_build(tmp_path / "c.zarr", root, log=log, tail_rank=None, teacher="tests.cache_builder.models:small")
    told = class_facts(open_cache(tmp_path / "c.zarr").manifest, None)["left out"]
    assert "2 .heic" in told
    assert told in " ".join(log.getvalue().split())


def test_long_names_and_many_endings_stay_readable() -> None:
    left_out = LeftOut()
    for number in range(50):
        left_out.add_file("file", "x" * 70_000 + f".{number:03}")
    assert len(left_out.in_words()) < 300
    assert "and 46 more" in left_out.in_words()
