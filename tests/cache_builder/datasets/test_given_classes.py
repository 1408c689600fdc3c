"""``?classes=``: classes in a given order, matched by name, for every kind of data."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_builder.console.names import natural_key, with_classes
from cache_builder.datasets import open_source
from cache_builder.datasets.given_classes import given_names, in_given_order
from cache_builder.format.errors import ConfigError, DataError


def tree(root: Path, *names: str) -> str:
    """A picture for each class folder."""
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / name / "a.png")
    return f"imagefolder:{root}"


def listing(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfant\r\nbee\r\ncat\r\n",
        b"ant\rbee\rcat",
        b"  ant  \n\n\tbee\n\n\ncat \n",
        b"ant\nbee\ncat",
    ],
)
def test_files_as_editors_write_them(tmp_path: Path, content: bytes) -> None:
    assert given_names(str(listing(tmp_path / "n", content)), ()) == ("ant", "bee", "cat")


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(tmp_path: Path, codec: str) -> None:
    path = listing(tmp_path / "n", "ant\nbée\n".encode(codec))
    with pytest.raises(ConfigError, match=r"UTF-16.*: save it as UTF-8"):
        given_names(str(path), ())


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        given_names(str(listing(tmp_path / "n", b"ant\nb\xffe\n")), ())


def test_a_class_that_is_there_twice_in_two_unicode_forms(tmp_path: Path) -> None:
    twice = "café\n" + unicodedata.normalize("NFD", "café")
    with pytest.raises(ConfigError, match="is there twice"):
        given_names(str(listing(tmp_path / "n", twice.encode())), ())


def test_natural_order_counts() -> None:
    names = ["10", "9", "1", "b2", "B10", "a"]
    assert sorted(names, key=natural_key) == ["1", "9", "10", "a", "b2", "B10"]
    assert given_names("natural", ["0", "10", "2"]) == ("0", "2", "10")


class TestFolders:
    def test_folders_are_matched_by_name(self, tmp_path: Path) -> None:
        spec = tree(tmp_path / "d", "0", "1", "2", "10")
        order = listing(tmp_path / "order.txt", b"0\n1\n2\n10\n")
        source = open_source(f"{spec}?classes={order}")
        assert source.class_names == ("0", "1", "2", "10")
        assert [sample_id.split("/")[0] for sample_id in source.ids] == ["0", "1", "10", "2"]
        assert source.labels is not None
        assert source.labels.tolist() == [0, 1, 3, 2]
        natural = open_source(f"{spec}?classes=natural")
        assert natural.labels is not None
        assert natural.labels.tolist() == [0, 1, 3, 2]

    def test_names_that_are_numbers_in_any_order(self, tmp_path: Path) -> None:
        spec = tree(tmp_path / "d", "1", "2", "10")
        order = listing(tmp_path / "order.txt", b"10\n2\n1\n")
        labels = open_source(f"{spec}?classes={order}").labels
        assert labels is not None
        assert labels.tolist() == [2, 0, 1]  # folders 1, 10, 2

    def test_folders_that_are_class_ids(self, tmp_path: Path) -> None:
        source = open_source(tree(tmp_path / "d", "281", "967") + "?classes=1000")
        assert source.labels is not None
        assert (source.labels.tolist(), len(source.class_names or ())) == ([281, 967], 1000)

    def test_a_line_without_a_folder_keeps_its_number(self, tmp_path: Path) -> None:
        spec = tree(tmp_path / "d", "ant", "cat")
        names = listing(tmp_path / "n", b"ant\nbee\ncat\n")
        source = open_source(f"{spec}?classes={names}")
        assert source.labels is not None
        assert source.labels.tolist() == [0, 2]

    def test_a_folder_without_a_line_is_told(self, tmp_path: Path) -> None:
        spec = tree(tmp_path / "d", "ant", "gnu")
        names = listing(tmp_path / "n", b"ant\ncat\n")
        told = r"1 of its 2 classes.*'gnu'.*'gnu' here and 'cat' there.*list every"
        with pytest.raises(DataError, match=told):
            open_source(f"{spec}?classes={names}")

    def test_composed_and_decomposed_names_are_one(self, tmp_path: Path) -> None:
        spec = tree(tmp_path / "d", unicodedata.normalize("NFD", "café"), "thé")
        names = listing(tmp_path / "n", "thé\ncafé\n".encode())
        labels = open_source(f"{spec}?classes={names}").labels
        assert labels is not None
        assert labels.tolist() == [1, 0]

    def test_a_path_that_holds_a_question_mark(self, tmp_path: Path) -> None:
        spec = tree(tmp_path / "d?classes=x", "ant")
        assert open_source(spec).class_names == ("ant",)

    def test_pictures_without_classes_have_nothing_to_order(self, tmp_path: Path) -> None:
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        with pytest.raises(ConfigError, match="no labels, so classes=3 has nothing to order"):
            open_source(f"imagefolder:{tmp_path}?classes=3")


@pytest.mark.parametrize("part", ["digits", "digits:test"])
def test_other_kinds_take_it_too(tmp_path: Path, part: str) -> None:
    names = listing(tmp_path / "n", "\n".join("9876543210").encode())
    plain, ordered = open_source(part), open_source(f"{part}?classes={names}")
    assert ordered.class_names == tuple("9876543210")
    assert plain.labels is not None
    assert ordered.labels is not None
    assert ordered.labels.tolist() == (9 - plain.labels).tolist()


def test_words_name_classes_that_had_only_numbers(tmp_path: Path) -> None:
    labels = np.array([0, 2, -1], np.int32)
    path = str(listing(tmp_path / "n", b"ant\nbee\ncat\n"))
    names, found = in_given_order("here", ("0", "1", "2"), labels, path)
    assert names == ("ant", "bee", "cat")
    assert found is labels
    names, found = in_given_order("here", ("cat", "ant", "bee"), labels, path)
    assert found is not None
    assert found.tolist() == [2, 1, -1]


def test_an_option_is_added_or_replaced() -> None:
    assert with_classes("imagefolder:/a", "natural") == "imagefolder:/a?classes=natural"
    assert with_classes("csv:/a?path=x&classes=n", "FILE") == "csv:/a?path=x&classes=FILE"
