from pathlib import Path

import pytest

from cache_builder.datasets.class_map import read_class_map
from cache_builder.format.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.txt", "my cats = tabby\n\nnew = 0\n"),
        ("m.txt", "my cats\ttabby\nnew\t0\n"),
        ("m", "\ufeffmy cats, tabby\r\nnew, 0\r\n"),
        ("m.csv", '"my cats",tabby\nnew,0\n'),
        ("m.tsv", "my cats\ttabby\nnew\t0\n"),
        ("m.json", '{"my cats": "tabby", "new": 0}'),
    ],
)
def test_every_form_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_class_map(str(tmp_path / name)) == {"my cats": "tabby", "new": "0"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cat\n", "line 1: 'cat'"),
        ("a = b\ncat =\n", "line 2: a class is missing"),
        ("a = b\na = c\n", "'a' is there twice"),
        ("", "names no class"),
        ('{"a": [1]}', r"'a' is \[1\]"),
        ('{"a": ', "--class-map"),
    ],
)
def test_what_is_no_map_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "m").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_class_map(str(tmp_path / "m"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*my folder = tench"):
        read_class_map(str(tmp_path / "m"))
