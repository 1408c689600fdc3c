"""Texts to class ids: numbers, names, and what is neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache_builder.datasets.labels import LabelBuffer, Labelled
from cache_builder.datasets.options import split_options
from cache_builder.format.errors import ConfigError, DataError


def labels(*values: str | None, classes: str | None = None) -> Labelled:
    buffer = LabelBuffer()
    for value in values:
        buffer.append(value)
    return buffer.finish("here", classes)


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        (["2", "0", " 2"], ("0", "1", "2"), [2, 0, 2]),
        (["1.0", None, "-1", "3."], ("0", "1", "2", "3"), [1, -1, -1, 3]),
        (["10", "9"], tuple(map(str, range(11))), [10, 9]),
        (["b", "a", "", "b"], ("a", "b"), [1, 0, -1, 1]),
        (["Zoo", "ant", "é"], ("Zoo", "ant", "é"), [0, 1, 2]),
        (["-1"], None, [-1]),
    ],
)
def test_values(values: list[str | None], names: tuple[str, ...] | None, numbers: list[int]) -> None:
    found, column = labels(*values)
    assert found == names
    assert column is not None
    assert column.dtype == np.int32
    assert column.tolist() == numbers


def test_no_value_is_no_labels() -> None:
    assert labels(None, "", None) == (None, None)


def test_numbers_and_names_may_mix_where_the_names_are_given(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("gnu\ncat\n\ndog\n", encoding="utf-8")
    names, column = labels("cat", "gnu", "2", classes=str(tmp_path / "names"))
    assert names == ("gnu", "cat", "dog")
    assert column is not None
    assert column.tolist() == [1, 0, 2]


def test_a_number_that_is_a_given_name_is_that_name(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("10\n2\n1\ncat\n", encoding="utf-8")
    names, column = labels("1", "10", "2.0", None, "-1", classes=str(tmp_path / "names"))
    assert names == ("10", "2", "1", "cat")
    assert column is not None
    assert column.tolist() == [2, 0, 1, -1, -1]
    with pytest.raises(DataError, match="label '3' is none of the 4 classes that were named"):
        labels("1", "3", classes=str(tmp_path / "names"))


@pytest.mark.parametrize("text", ["", "a\na\n", None, "\xff"])
def test_files_that_hold_no_names(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "names").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="one name a line"):
        labels("a", classes=str(tmp_path / "names"))


def test_mixtures_are_refused() -> None:
    with pytest.raises(DataError, match=r"here: labels mix numbers and names, e\.g\. '1' and 'x'"):
        labels("1", "x")


def test_options() -> None:
    assert split_options("csv", "/a/b.csv?path=x&label=", ("path", "label")) == (
        "/a/b.csv",
        {"path": "x", "label": ""},
    )
    assert split_options("webdataset", "/a/??.tar", ()) == ("/a/??.tar", {})
    assert split_options("webdataset", "/a/?.tar?id=key", ("id",)) == ("/a/?.tar", {"id": "key"})
    assert split_options("csv", "x?path=a=b", ("path",))[1] == {"path": "a=b"}
    with pytest.raises(ConfigError, match="given twice"):
        split_options("csv", "x?path=a&path=b", ("path",))
    with pytest.raises(ConfigError, match="unknown option of csv 'x'"):
        split_options("csv", "x?x=1", ("path",))
