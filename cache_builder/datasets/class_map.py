"""``--class-map FILE``: which class of the teacher each class of the data is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from cache_builder.console.text_lines import numbered_lines
from cache_builder.datasets.class_names import class_key
from cache_builder.datasets.given_classes import read_text
from cache_builder.format.errors import ConfigError

_EXPECTED = (
    "expected a line for each class of the data, such as 'my folder = tench' or 'my folder,0' (a name or a "
    'number of the teacher\'s), or JSON such as {"my folder": "tench"}'
)


def read_class_map(path: str) -> dict[str, str]:
    """Class of the data (as :func:`class_key` makes it) to the teacher's class, a name or a number as text.

    JSON (an object), CSV or TSV (two columns, by the file's suffix), else lines ``name = name``.
    """
    text = read_text(f"--class-map {path}", Path(path).expanduser(), _EXPECTED)
    suffix = Path(path).suffix.lower()
    pairs = _json(path, text) if text.lstrip().startswith("{") else _lines(path, text, suffix)
    found: dict[str, str] = {}
    for where, name, target in pairs:
        if not name or not target:
            raise ConfigError(f"--class-map {path}, {where}: a class is missing; {_EXPECTED}")
        if found.setdefault(class_key(name), target) != target:
            raise ConfigError(f"--class-map {path}, {where}: {name!r} is there twice, as different classes")
    if not found:
        raise ConfigError(f"--class-map {path}: the file names no class; {_EXPECTED}")
    return found


def _json(path: str, text: str) -> Iterator[tuple[str, str, str]]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--class-map {path}: {error}; {_EXPECTED}") from error
    for name, target in document.items():
        if isinstance(target, bool) or not isinstance(target, int | str):
            raise ConfigError(f"--class-map {path}: {name!r} is {target!r}; {_EXPECTED}")
        yield f"class {name!r}", str(name), str(target).strip()


def _lines(path: str, text: str, suffix: str) -> Iterator[tuple[str, str, str]]:
    for number, line in numbered_lines(text):
        parts = [part.strip() for part in _split(line, suffix)]
        if len(parts) != 2:
            raise ConfigError(f"--class-map {path}, line {number}: {line.strip()!r}; {_EXPECTED}")
        yield f"line {number}", parts[0], parts[1]


def _split(line: str, suffix: str) -> list[str]:
    """By what the suffix says, else by the first of ``=``, a tab and a comma that is there."""
    delimiters = {".csv": ",", ".tsv": "\t"}.get(suffix)
    if delimiters is None:
        delimiters = next((mark for mark in ("=", "\t", ",") if mark in line), "=")
    if delimiters == "=":
        return line.split("=", 1)
    return next(csv.reader([line], delimiter=delimiters, skipinitialspace=True))
