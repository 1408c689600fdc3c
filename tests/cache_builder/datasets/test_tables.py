"""CSV and Parquet tables of image paths."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cache_builder.datasets
from cache_builder.datasets import open_source
from cache_builder.format.errors import ConfigError, DataError
from tests.cache_builder.datasets.made import COUNT, LABELS, csv_table, jpeg, parquet_table


def csv_of(tmp_path: Path, text: str, name: str = "t.csv") -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return f"csv:{tmp_path}/{name}"


def parquet_of(tmp_path: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return f"parquet:{tmp_path}/t.parquet"


@pytest.mark.parametrize("make", [csv_table, parquet_table])
class TestBoth:
    def test_ids_and_labels(self, tmp_path: Path, make: object) -> None:
        source = open_source(make(tmp_path))  # type: ignore[operator]
        assert list(source.ids) == [f"n{row}" for row in range(COUNT)]
        assert source.labels is not None
        assert source.labels.tolist() == LABELS
        assert source.class_names == ("ant", "bee", "cat")

    def test_options(self, tmp_path: Path, make: object) -> None:
        spec: str = make(tmp_path)  # type: ignore[operator]
        names = tmp_path / "names.txt"
        names.write_text("cat\nbee\nant\n")
        source = open_source(f"{spec}?id=path&classes={names}")
        assert source.ids[0] == "images/ant/0000.jpg"
        assert source.labels is not None
        assert source.labels.tolist() == [2 - label for label in LABELS]
        assert source.class_names == ("cat", "bee", "ant")
        assert open_source(f"{spec}?label=").labels is None

    def test_a_file_that_is_missing_is_told_with_its_row(self, tmp_path: Path, make: object) -> None:
        source = open_source(make(tmp_path))  # type: ignore[operator]
        (tmp_path / "images" / "bee" / "0005.jpg").unlink()
        (tmp_path / "images" / "bee" / "0006.jpg").write_bytes(b"damaged")
        with pytest.raises(
            DataError, match=r"images/bee/0005\.jpg \(row 5 of .*, the first is 0\): No such file"
        ):
            source.read(5)
        with pytest.raises(DataError, match=r"0006\.jpg \(row 6 of .*not an image"):
            source.read(6)

    def test_a_column_that_is_not_there(self, tmp_path: Path, make: object) -> None:
        spec: str = make(tmp_path)  # type: ignore[operator]
        with pytest.raises(DataError, match=r"no columns 'file' but 'path', 'label', 'id'.*\?path=COLUMN"):
            open_source(f"{spec}?path=file")

    def test_names_that_were_not_given(self, tmp_path: Path, make: object) -> None:
        (tmp_path / "names.txt").write_text("ant\nbee\n")
        with pytest.raises(DataError, match="label 'cat' is none of the 2 classes"):
            open_source(f"{make(tmp_path)}?classes={tmp_path}/names.txt")  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
class TestNothingThere:
    def test_missing(self, tmp_path: Path, kind: str) -> None:
        for path in (tmp_path, tmp_path / "x"):
            with pytest.raises(DataError, match=r"does not exist|is a folder"):
                open_source(f"{kind}:{path}")

    def test_no_path(self, kind: str) -> None:
        with pytest.raises(ConfigError, match=f"write {kind}:PATH"):
            open_source(kind)

    def test_no_rows(self, tmp_path: Path, kind: str) -> None:
        spec = (
            csv_of(tmp_path, "path,label\n")
            if kind == "csv"
            else parquet_of(tmp_path, path=pa.array([], pa.string()), label=pa.array([], pa.int64()))
        )
        with pytest.raises(DataError, match="has no rows"):
            open_source(spec)

    def test_unknown_option(self, tmp_path: Path, kind: str) -> None:
        with pytest.raises(ConfigError, match="did you mean 'label'"):
            open_source(f"{kind}:{tmp_path}/x?lable=y")


class TestCsv:
    def test_paths_alone(self, tmp_path: Path) -> None:
        source = open_source(csv_of(tmp_path, "path\na.jpg\n\nsub/b.jpg\n"))
        assert list(source.ids) == ["a.jpg", "sub/b.jpg"]
        assert source.labels is None
        assert source.class_names is None

    def test_numbers_and_gaps(self, tmp_path: Path) -> None:
        source = open_source(csv_of(tmp_path, "path,label\na,3\nb,\nc,0\nd,-1\ne,2.0\n"))
        assert source.labels is not None
        assert source.labels.tolist() == [3, -1, 0, -1, 2]
        assert source.class_names == ("0", "1", "2", "3")

    def test_as_spreadsheets_write_it(self, tmp_path: Path) -> None:
        text = '\ufeffpath,label\r\n"a, b.jpg","the ""x"""\r\né.jpg, y \r\n'
        source = open_source(csv_of(tmp_path, text))
        assert list(source.ids) == ["a, b.jpg", "é.jpg"]
        assert source.class_names == ('the "x"', "y")

    def test_tabs(self, tmp_path: Path) -> None:
        source = open_source(csv_of(tmp_path, "path\tlabel\na,b\t1\n", "t.tsv"))
        assert list(source.ids) == ["a,b"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty, expected a header"),
            ("path,label\na,1\nb\n", "line 3: 1 fields, but 2 in the header"),
            ("path,label\na,1\n,2\n", "line 3: an empty path"),
            ("path,id\na,\n", "line 2: an empty id"),
            ('path,label\n"a,1\n', "line 2: unexpected end of data"),
            ("path,path\na,b\n", "several columns 'path'"),
            ("path,label\na,1\nb,cat\n", "labels mix numbers and names, e.g. '1' and 'cat'.*classes=FILE"),
            ("path,label\na,-2\n", "'-2': expected a class id"),
            ("path,label\na,99999999\n", "expected a class id from 0 to 999,999"),
        ],
    )
    def test_damage(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            open_source(csv_of(tmp_path, text))

    def test_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(b"path\n\xff.jpg\n")
        with pytest.raises(DataError, match=r"t\.csv.*not UTF-8"):
            open_source(f"csv:{tmp_path}/t.csv")

    def test_absolute_paths(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        (tmp_path / "tables").mkdir()
        source = open_source(csv_of(tmp_path / "tables", f"path\n{tmp_path}/a.jpg\n../a.jpg\n"))
        assert source.read(0).digest == source.read(1).digest


class TestParquet:
    def test_numbers_nulls_and_categories(self, tmp_path: Path) -> None:
        source = open_source(parquet_of(tmp_path, path=["a", "b", "c"], label=[2, None, 0], id=[7, 8, 9]))
        assert list(source.ids) == ["7", "8", "9"]
        assert source.labels is not None
        assert source.labels.tolist() == [2, -1, 0]
        names = pa.array(["x", "a", "x"]).dictionary_encode()
        source = open_source(parquet_of(tmp_path, path=["a", "b", "c"], label=names))
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0, 1]
        assert source.class_names == ("a", "x")

    def test_an_empty_cell(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="column 'path': nothing in row 1"):
            open_source(parquet_of(tmp_path, path=["a", None]))

    def test_a_column_of_something_else(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=re.escape("list<") + ".* is neither text nor numbers"):
            open_source(parquet_of(tmp_path, path=["a"], label=[[1, 2]]))

    def test_damage(self, tmp_path: Path) -> None:
        spec = parquet_of(tmp_path, path=["a"])
        path = tmp_path / "t.parquet"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
            open_source(spec)

    def test_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = parquet_of(tmp_path, path=["a"])
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.delitem(sys.modules, "cache_builder.datasets.arrow")
        monkeypatch.delattr(cache_builder.datasets, "arrow")
        with pytest.raises(ConfigError, match=r"pip install 'kdcache\[parquet\]'"):
            open_source(spec)


class TestOddIds:
    """Ids are bytes that nobody trims or rewrites."""

    ODD = (
        " a",
        "a ",
        "\ta",
        '"a"',
        "a,b",
        "a\nb",
        "a\r\nb",
        "\n",
        "x" * 65_536,
        "\u00e9",
        "e\u0301",
        "a/../b",
    )

    def test_csv_keeps_them(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "id"), *(("a.jpg", sample_id) for sample_id in self.ODD)])
        assert tuple(open_source(f"csv:{tmp_path}/t.csv").ids) == self.ODD

    def test_parquet_keeps_them(self, tmp_path: Path) -> None:
        spec = parquet_of(tmp_path, path=["a.jpg"] * len(self.ODD), id=list(self.ODD))
        assert tuple(open_source(spec).ids) == self.ODD

    def test_a_path_with_blanks_is_that_file_and_blanks_behind_a_comma_are_none(self, tmp_path: Path) -> None:
        for name in (" odd .jpg", "a.jpg"):
            (tmp_path / name).write_bytes(jpeg(0))
        source = open_source(csv_of(tmp_path, "label,path\ncat, odd .jpg\ncat, a.jpg \n"))
        assert list(source.ids) == [" odd .jpg", "a.jpg"]
        assert source.read(0).digest == source.read(1).digest

    def test_a_file_in_another_normal_form_is_named_as_such(self, tmp_path: Path) -> None:
        (tmp_path / "cafe\u0301.jpg").write_bytes(jpeg(0))
        source = open_source(csv_of(tmp_path, "path\ncaf\u00e9.jpg\n"))
        with pytest.raises(
            DataError, match=r"another Unicode normal form is there, '.*cafe\\u0301\.jpg' and not"
        ):
            source.read(0)
