"""Labels as data sets write them, numbers or names, to class ids and class names."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets.class_names import places_of
from cache_builder.datasets.given_classes import MOST_CLASSES, Labelled, given_names
from cache_builder.format.errors import DataError

__all__ = ["LabelBuffer", "Labelled", "resolve_labels"]

# 3.0 is how a table library writes the 3 of a column that has gaps.
_NUMBER = re.compile(r"([+-]?\d+)(\.0*)?")


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
    line in the order of the ids, the number of classes, or ``natural``. A number that is a name there is
    that name, not an id.
    """
    if not values:
        return None, None
    names = given_names(classes, values) if classes else None
    ids = [_number(value) for value in values] if names is None else _ids(where, values, names)
    if any(number is None for number in ids):
        names, ids = _named(where, values, ids, names)
    largest = max(number for number in ids if number is not None)
    if names is None:
        names = tuple(str(number) for number in range(largest + 1))
    if largest >= len(names):
        raise DataError(
            f"{where}: label {largest} is beyond the {len(names)} classes that were named, 0 to "
            f"{len(names) - 1}; where labels count from 1, list their numbers in ?classes=FILE, one a line"
        )
    table = np.array([*ids, -1], np.int32)  # code -1 takes the last
    return names or None, table[codes]


def _ids(where: str, values: Sequence[str], names: tuple[str, ...]) -> list[int | None]:
    """The place of every value among the given names, else the class id that it is.

    Where one of the given names is a number, a label that is none of them is no class id either: nobody
    could tell which of the two was meant.
    """
    exact, written = places_of(values, names), places_of([_as_written(value) for value in values], names)
    places = np.where(exact >= 0, exact, written)
    ids = [_number(value) if place < 0 else int(place) for value, place in zip(values, places, strict=True)]
    unnamed = [value for value, place in zip(values, places, strict=True) if place < 0]
    wrong = [value for value in unnamed if _number(value) != -1]
    if wrong and len(unnamed) < len(values) and any(map(str.isdecimal, names)):
        raise DataError(
            f"{where}: label {wrong[0]!r} is none of the {len(names)} classes that were named, and other "
            "labels are: name every class in ?classes=FILE, one a line"
        )
    return ids


def _as_written(value: str) -> str:
    """``3`` for the 3.0 of a table library; any other text as it is."""
    found = _NUMBER.fullmatch(value.strip())
    return found[1] if found else value


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
    if not -1 <= number < MOST_CLASSES:
        raise DataError(f"label {text!r}: expected a class id from 0 to {MOST_CLASSES - 1:,}, or -1 for none")
    return number
