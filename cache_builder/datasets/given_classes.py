"""What ``?classes=`` says: class names in the order of their ids, for every kind of data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.console.file_kinds import NO_TEXT, kind_of
from cache_builder.console.names import natural_key
from cache_builder.console.text_lines import lines_of
from cache_builder.datasets.class_names import (
    class_key,
    is_numbering,
    relabelled,
    require_known,
)
from cache_builder.format.errors import ConfigError

Labelled = tuple[tuple[str, ...] | None, NDArray[np.int32] | None]
"""Class names and labels [N]."""

MOST_CLASSES = 1_000_000
NATURAL = "natural"
"""``?classes=natural``: the names of the data itself, 2 before 10."""

_EXPECTED = "expected a text file in UTF-8 with one name a line, the number of classes, or 'natural'"


def given_names(classes: str, own: Sequence[str]) -> tuple[str, ...]:
    """The names that ``?classes=FILE|N|natural`` puts in order; ``own``: the distinct ones of the data.

    Raises :class:`ConfigError` for a file that cannot be read, names nothing or names a class twice.
    """
    if classes.isdecimal():
        return tuple(str(number) for number in range(min(int(classes), MOST_CLASSES)))
    path = Path(classes).expanduser()
    if classes == NATURAL and not path.exists():
        return tuple(sorted(own, key=lambda name: (natural_key(name), name)))
    names = tuple(line.strip() for line in lines_of(read_text(f"classes={classes}", path, _EXPECTED)))
    if not names:
        raise ConfigError(f"classes={classes}: the file names no class; {_EXPECTED}")
    _check_once(classes, names)
    return names


def read_text(what: str, path: Path, expected: str) -> str:
    """A text file in UTF-8, without its byte order mark; ``what`` and ``expected`` are for the error."""
    try:
        content = path.read_bytes()
    except OSError as error:
        found = f"it is {kind_of(path)}" if path.is_dir() else error.strerror or error
        raise ConfigError(f"{what}: {found}; {expected}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        # UTF-16 may lack the mark by which it is known.
        kind = kind_of(path).replace(NO_TEXT, "UTF-16, or no text")
        raise ConfigError(f"{what}: the file is {kind}: save it as UTF-8; {expected}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{what}, line {line}: not UTF-8: save it as UTF-8; {expected}") from error


def _check_once(classes: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if class_key(name) in seen:
            raise ConfigError(
                f"classes={classes}: {name!r} is there twice; expected one name a line, each once"
            )
        seen.add(class_key(name))


def in_given_order(
    where: str, names: tuple[str, ...] | None, labels: NDArray[np.int32] | None, classes: str | None
) -> Labelled:
    """Names and labels of a data set that names its classes, in the order of ``?classes=``.

    Classes are matched by name; a given name that the data lacks is a class without pictures. Where the
    data's own names are only numbers, 0 to N - 1, those are class ids and the given names name them.
    Raises :class:`DataError` for a class of the data that was not given, :class:`ConfigError` where there
    is nothing to order.
    """
    if not classes:
        return names, labels
    if names is None or labels is None:
        raise ConfigError(f"{where}: the data has no labels, so classes={classes} has nothing to order")
    given = given_names(classes, names)
    if is_numbering(names) and not all(name.isdecimal() for name in given) and len(names) <= len(given):
        return given, labels
    remedy = f"list every class of the data in {classes}, one a line (a class may lack pictures)"
    return given, relabelled(labels, require_known(names, given, where, f"classes={classes}", remedy))
