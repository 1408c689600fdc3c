"""The words of the wire stand in one place: neither server nor client writes them out again."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import wire

ROOT = Path(__file__).parents[2]
WORDS = (
    wire.ID_HEADER,
    wire.DIGEST_HEADER,
    wire.ROWS,
    wire.WIDE_ROWS,
    wire.RECORDS,
    wire.COUNTED,
    wire.NPY,
    wire.NDJSON,
)


def texts(file: Path) -> list[str]:
    """Every string of a file that is no docstring."""
    tree = ast.parse(file.read_text())
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents
    ]


def parts(file: Path) -> list[str]:
    """What stands between the values of a file's f-strings: such strings are made to be sent or shown."""
    tree = ast.parse(file.read_text())
    joined = (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr))
    return [part.value for node in joined for part in node.values if isinstance(part, ast.Constant)]


@pytest.mark.parametrize("package", ["logit_server", "trainer", "cache_builder"])
def test_they_are_written_once(package: str) -> None:
    found = [
        (file.relative_to(ROOT).as_posix(), word)
        for file in sorted((ROOT / package).rglob("*.py"))
        if file != Path(wire.__file__)
        for text in texts(file)
        for word in WORDS
        if word.lower() == text.lower()
    ]
    found += [
        (file.relative_to(ROOT).as_posix(), part)
        for file in sorted((ROOT / package).rglob("*.py"))
        for part in parts(file)
        if any(word.lower() in part.lower() for word in (*WORDS, wire.CACHES_PATH))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "path"),
    [("vit_l", "/v1/caches/vit_l"), ("a b/c", "/v1/caches/a%20b%2Fc"), ("ü", "/v1/caches/%C3%BC")],
)
def test_the_path_of_a_cache(name: str, path: str) -> None:
    assert wire.cache_path(name) == path


@pytest.mark.parametrize(
    ("rows", "media_type", "width"),
    [
        ([], wire.ROWS, 4),
        ([0, 7], wire.ROWS, 4),
        ([2**32 - 1], wire.ROWS, 4),
        ([0, 2**32], wire.WIDE_ROWS, 8),
    ],
)
def test_rows_are_as_narrow_as_they_can_be(rows: list[int], media_type: str, width: int) -> None:
    found, body = wire.rows_body(np.array(rows, np.int64))
    assert found == media_type
    assert len(body) == width * len(rows)
    assert np.frombuffer(body, wire.ROW_TYPES[found]).tolist() == rows
