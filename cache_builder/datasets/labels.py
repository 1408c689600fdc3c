"""Labels as data sets write them, numbers or names, to class ids and class names."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import ConfigError, DataError

# 3.0 is how a table library writes the 3 of a column that has gaps.
_NUMBER = re.compile(r"([+-]?\d+)(\.0*)?")
_MOST_CLASSES = 1_000_000

Labelled = tuple[tuple[str, ...] | None, NDArray[np.int32] | None]
"""Class names and labels [N]."""


class LabelBuffer:
    """Labels being collected: four bytes a row, and each distinct value once."""

    def __init__(self) -> None:
        self._codes = array("i")
        self._values: dict[str, int] = {}

    def append(self, value: str | None) -> None:
        """The next row's label as text, None or empty where it has none."""
        self._codes.append(self._values.setdefault(value, len(self._values)) if value else -1)

    def finish(self, where: str, classes: str | None) -> Labelled:
        """As :func:`resolve_labels` has it."""
        return resolve_labels(where, list(self._values), np.array(self._codes, np.int32), classes)


def resolve_labels(
    where: str, values: Sequence[str], codes: NDArray[np.int32], classes: str | None
) -> Labelled:
    """Distinct label texts and, per row, which of them it has (-1 = none), to class names and labels.

    Numbers are class ids, -1 means none; without ``classes`` they name themselves, 0 to the largest. Names
    get their ids from ``classes``, else from their sorted order. ``classes``: a text file with one name a
    line in the order of the ids, or the number of classes.
    """
    if not values:
        return None, None
    names = _given(classes) if classes else None
    ids = [names.index(value) if names and value in names else _number(value) for value in values]
    if any(number is None for number in ids):
        names, ids = _named(where, values, ids, names)
    largest = max(number for number in ids if number is not None)
    if names is None:
        names = tuple(str(number) for number in range(largest + 1))
    if largest >= len(names):
        raise DataError(f"{where}: label {largest} is beyond the {len(names)} classes that were named")
    table = np.array([*ids, -1], np.int32)  # code -1 takes the last
    return names or None, table[codes]


def _named(
    where: str, values: Sequence[str], ids: Sequence[int | None], names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], list[int | None]]:
    """Ids by sorted order, where every value is a name."""
    unnumbered = next(value for value, number in zip(values, ids, strict=True) if number is None)
    if names is not None:
        raise DataError(f"{where}: label {unnumbered!r} is none of the {len(names)} classes that were named")
    numbered = next((value for value, number in zip(values, ids, strict=True) if number is not None), None)
    if numbered is not None:
        raise DataError(
            f"{where}: labels mix numbers and names, e.g. {numbered!r} and {unnumbered!r}: "
            "say ?classes=FILE, with one class name a line"
        )
    ordered = {name: index for index, name in enumerate(sorted(values))}
    return tuple(ordered), [ordered[value] for value in values]


def _number(text: str) -> int | None:
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    number = int(found[1])
    if not -1 <= number < _MOST_CLASSES:
        raise DataError(
            f"label {text!r}: expected a class id from 0 to {_MOST_CLASSES - 1:,}, or -1 for none"
        )
    return number


def _given(classes: str) -> tuple[str, ...]:
    if classes.isdecimal():
        return tuple(str(number) for number in range(min(int(classes), _MOST_CLASSES)))
    try:
        text = Path(classes).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"classes={classes}: {error}; expected the number of classes, or a text file with one name a line"
        ) from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"classes={classes}: expected one name a line, each once")
    return names
