"""The words of the wire stand in one place: neither server nor client writes them out again."""

from __future__ import annotations

import ast
from pathlib import Path

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
    assert found == []


@pytest.mark.parametrize(
    ("name", "path"),
    [("vit_l", "/v1/caches/vit_l"), ("a b/c", "/v1/caches/a%20b%2Fc"), ("ü", "/v1/caches/%C3%BC")],
)
def test_the_path_of_a_cache(name: str, path: str) -> None:
    assert wire.cache_path(name) == path
