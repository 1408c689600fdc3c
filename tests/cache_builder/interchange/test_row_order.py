"""Rows of a dump without ids take the order that was stated: torchvision's is really torchvision's."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from cache_builder.datasets import ImageSource, open_source
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.interchange.row_order import listed_ids, order_rows, plausible_orders

# Names that sort otherwise as whole paths: '-', ' ' and '.' come before '/', capitals before small letters.
NAMES = (
    "cat/z.png", "cat/sub/a.png", "cat/sub-1/b.png", "cat/sub/deep/c.png", "cat/10.png", "cat/9.png",
    "cat-big/a.png", "cat big/a.png", "Cat/a.PNG", "cat.old/x.jpg", "é/a.png", "e\u0301/a.png", "dog/𝄞.png",
    "dog/\uffee.png", "dog/a b.png", "dog/a-b.tif",
)  # fmt: skip
ONLY_OURS = ("cat/a.gif", "dog/0.jfif")


def put(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF", ".gif": "GIF"}.get(path.suffix.lower(), "JPEG")
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, kind)
    return root


def theirs(root: Path) -> list[str]:
    return [str(Path(path).relative_to(root)) for path, _ in TorchvisionFolder(str(root)).samples]


def ours(source: ImageSource, order: str | None, rows: int | None = None) -> list[str]:
    found = order_rows(order, len(source) if rows is None else rows, source, "logits.npy")
    return [source.ids[index] for index in found.indices]


class TestTorchvision:
    def test_it_goes_through_a_tree_as_torchvision_does(self, tmp_path: Path) -> None:
        source = open_source(f"imagefolder:{put(tmp_path, NAMES)}")
        assert ours(source, "torchvision") == theirs(tmp_path)
        assert ours(source, "torchvision") != list(source.ids)
        assert ours(source, "path") == list(source.ids)

    def test_linked_folders_are_followed_as_there(self, tmp_path: Path) -> None:
        put(tmp_path / "data", NAMES)
        put(tmp_path / "other", ("x/a.png", "0.png"))
        (tmp_path / "data" / "cat" / "linked").symlink_to(tmp_path / "other")
        source = open_source(f"imagefolder:{tmp_path}/data")
        assert ours(source, "torchvision") == theirs(tmp_path / "data")

    def test_files_that_it_does_not_read_have_no_row(self, tmp_path: Path) -> None:
        source = open_source(f"imagefolder:{put(tmp_path, NAMES + ONLY_OURS)}")
        assert ours(source, "torchvision", len(NAMES)) == theirs(tmp_path)
        with pytest.raises(
            DataError, match=r"18 rows by --order torchvision, .* 16 samples that torchvision"
        ):
            ours(source, "torchvision")

    def test_data_without_class_folders_has_no_such_order(self, tmp_path: Path) -> None:
        flat = open_source(f"imagefolder:{put(tmp_path, ('a.png', 'b.png'))}")
        for source in (flat, open_source("digits")):
            with pytest.raises(ConfigError, match="has no class folders"):
                ours(source, "torchvision")

    def test_torchvisions_own_data_sets_are_in_it(self, tmp_path: Path) -> None:
        source = open_source(f"torchvision:ImageFolder:{put(tmp_path, NAMES)}")
        assert ours(source, "torchvision") == list(source.ids)


class TestNoOrder:
    def test_where_two_orders_differ_one_must_be_stated(self, tmp_path: Path) -> None:
        source = open_source(f"imagefolder:{put(tmp_path, NAMES)}")
        with pytest.raises(
            ConfigError, match=r"row 1 \(counted from 0\) .*'cat/10\.png' .*say --order torch"
        ):
            ours(source, None)

    def test_where_there_is_only_one_none_need_be(self, tmp_path: Path) -> None:
        names = ("cat/a.png", "cat/b.png", "dog/a.png")
        source = open_source(f"imagefolder:{put(tmp_path, names)}")
        assert tuple(ours(source, None)) == names
        assert len(ours(open_source("digits"), None)) == len(open_source("digits"))

    def test_another_number_of_rows_is_refused_and_what_is_left_out_is_told(self, tmp_path: Path) -> None:
        source = open_source(f"imagefolder:{put(tmp_path, NAMES)}")
        (tmp_path / "cat" / "x.heic").write_bytes(b"")
        source = open_source(f"imagefolder:{tmp_path}")
        for order in (None, "path"):
            with pytest.raises(DataError, match=r"17 rows .* 16 samples.*give --ids.*leaves out 1 x file"):
                ours(source, order, 17)

    @pytest.mark.parametrize("order", ["sorted", "file:", "file", "Torchvision"])
    def test_what_is_no_order_is_named(self, order: str) -> None:
        with pytest.raises(ConfigError, match=f"--order {order}: expected torchvision, path or file:LIST"):
            listed_ids(order, 3)


class TestList:
    @pytest.fixture
    def source(self, tmp_path: Path) -> ImageSource:
        return open_source(f"imagefolder:{put(tmp_path / 'data', NAMES)}")

    def listed(self, tmp_path: Path, source: ImageSource, lines: list[str], end: str = "\n") -> list[str]:
        (tmp_path / "list.txt").write_text(end.join(lines) + end, newline="", encoding="utf-8")
        return ours(source, f"file:{tmp_path}/list.txt", len(lines))

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("prefix", ["", "./", "/data/train/", "train/"])
    def test_ids_or_paths_below_any_folder(
        self, tmp_path: Path, source: ImageSource, prefix: str, end: str
    ) -> None:
        wanted = list(np.random.default_rng(1).permutation(source.ids))
        assert self.listed(tmp_path, source, [prefix + name for name in wanted], end) == wanted
        assert self.listed(tmp_path, source, [prefix + name for name in wanted[:5]], end) == wanted[:5]

    def test_its_length_must_be_that_of_the_rows(self, tmp_path: Path, source: ImageSource) -> None:
        (tmp_path / "list.txt").write_text("\n".join(source.ids))
        for rows in (15, 17):
            with pytest.raises(DataError, match=rf"has 16 lines, the dump {rows} rows"):
                ours(source, f"file:{tmp_path}/list.txt", rows)

    def test_an_entry_that_is_there_twice_is_named_with_its_lines(
        self, tmp_path: Path, source: ImageSource
    ) -> None:
        lines = [*source.ids[:-1], source.ids[2]]
        with pytest.raises(DataError, match="is there twice, on lines 3 and 16, counted from 1"):
            self.listed(tmp_path, source, lines)

    def test_two_entries_that_are_one_sample_are_refused(self, tmp_path: Path, source: ImageSource) -> None:
        lines = ["cat/z.png", "cat/z"]
        with pytest.raises(DataError, match=r"rows 0 and 1 .*'cat/z\.png' and 'cat/z', are both sample"):
            self.listed(tmp_path, source, lines)

    def test_an_unknown_entry_is_named_with_near_ones(self, tmp_path: Path, source: ImageSource) -> None:
        with pytest.raises(DataError, match=r"1 of 1 .*'cat/z\.jpeg'.*near .*'cat/z\.png'"):
            self.listed(tmp_path, source, ["cat/z.jpeg"])

    def test_another_normal_form_is_said_to_be_just_that(self, tmp_path: Path) -> None:
        source = open_source(
            f"imagefolder:{put(tmp_path / 'nfd', ('cafe' + chr(0x301) + '/a.png', 'b/b.png'))}"
        )
        composed = unicodedata.normalize("NFC", "cafe\u0301/a.png")
        with pytest.raises(DataError, match=r"the same letters in another Unicode normal form") as raised:
            self.listed(tmp_path, source, [composed, "b/b.png"])
        assert "\\xe9" in str(raised.value)
        assert "NFC" in str(raised.value)
        assert "NFD" in str(raised.value)

    def test_odd_ids_stay_what_they_are(self, tmp_path: Path) -> None:
        odd = [" a", "a ", "\ta", '"a"', "a,b", "a\u2028b", "a\x0bb", "a\x85b", "x" * 65_536, "a'b", "🂡"]
        (tmp_path / "l.txt").write_text("\n".join(odd), encoding="utf-8", newline="")
        assert listed_ids(f"file:{tmp_path}/l.txt", len(odd)) == odd
        odd += ["a\nb", "a\r", "\n"]
        (tmp_path / "l.json").write_text(json.dumps(odd))
        assert listed_ids(f"file:{tmp_path}/l.json", len(odd)) == odd
        (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfa\xff\nb\n")
        assert listed_ids(f"file:{tmp_path}/l.txt", 2) == ["a\udcff", "b"]

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("l.txt", b"a\n\nb\n", "has 2 lines, the dump 3 rows"),
            ("l.json", b'["a", "", "b"]', "line 2: an empty id"),
            ("l.txt", "a\nb".encode("utf-16"), "is UTF-16"),
            ("l.json", b'{"a": 1}', "is no list of strings"),
            ("l.json", b"[1, 2, 3]", "is no list of strings"),
            ("l.json", b"[", "cannot be read"),
        ],
    )
    def test_a_file_that_is_no_list_is_refused(
        self, tmp_path: Path, name: str, content: bytes, said: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said):
            listed_ids(f"file:{tmp_path}/{name}", 3)
        with pytest.raises(DataError, match="No such file"):
            listed_ids(f"file:{tmp_path}/none", 3)


def test_orders_of_another_length_are_not_plausible(tmp_path: Path) -> None:
    source = open_source(f"imagefolder:{put(tmp_path, NAMES + ONLY_OURS)}")
    assert list(plausible_orders(len(source), source)) == ["path"]
    assert list(plausible_orders(len(NAMES), source)) == ["torchvision"]
