"""Classes matched by their names: where two sides name their classes, position decides nothing."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import DataError

_NAMED = 5


def places_of(names: Sequence[str], known: Sequence[str] | Mapping[str, int]) -> NDArray[np.int32]:
    """The place of each name among the known ones, -1 for a name that is not among them: int32 [names].

    ``known``: names in the order of their class ids, or a mapping from every spelling to its class id. A name
    that is not there letter for letter is found by its :func:`class_key`, where only one known name has it. A
    sequence that names several classes alike has no place for that name.
    """
    ids = known if isinstance(known, Mapping) else unique_places(enumerate(known))
    keys = unique_places((place, class_key(name)) for name, place in ids.items())
    return np.array([ids.get(name, keys.get(class_key(name), -1)) for name in names], np.int32)


def unique_places(named: Iterable[tuple[int, str]]) -> dict[str, int]:
    """Name to place, without the names that stand for several places."""
    places: dict[str, int] = {}
    repeated: set[str] = set()
    for place, name in named:
        if places.setdefault(name, place) != place:
            repeated.add(name)
    return {name: place for name, place in places.items() if name not in repeated}


def class_key(name: str) -> str:
    """A name without what no reader sees: its Unicode form (NFC or NFD) and blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def is_numbering(names: Sequence[str]) -> bool:
    """Whether the names are nothing but the class ids, ``0`` to ``N - 1`` in order: nobody named these."""
    return all(name == str(place) for place, name in enumerate(names))


def are_numbers(names: Sequence[str]) -> bool:
    """Whether every name is a number, in whatever order."""
    return all(name.isdecimal() for name in names)


def relabelled(labels: NDArray[np.int32], places: NDArray[np.int32]) -> NDArray[np.int32]:
    """Labels [N] by one numbering in another: ``places[label]``, and -1 (none) stays -1."""
    return np.append(places, np.int32(-1))[labels]


def first_difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """The first class id, counted from 0, at which two lists of names differ; empty where none does."""
    for place, (left, right) in enumerate(zip_longest(ours, theirs)):
        if left != right:
            return f"class {place} (counted from 0) is {_shown(left)} here and {_shown(right)} there"
    return ""


def require_known(
    names: Sequence[str], known: Sequence[str] | Mapping[str, int], where: str, whose: str, remedy: str
) -> NDArray[np.int32]:
    """As :func:`places_of`; a name that is not known is a :class:`DataError`.

    ``where``: what has the names, such as a data set's spec; ``whose``: what knows the others, such as
    ``the student``; ``remedy``: what to do, a whole clause.
    """
    places = places_of(names, known)
    unknown = [name for name, place in zip(names, places, strict=True) if place < 0]
    if unknown:
        raise DataError(f"{where}: {unknown_classes(unknown, names, list(known), whose)}; {remedy}")
    return places


def unknown_classes(unknown: Sequence[str], names: Sequence[str], known: Sequence[str], whose: str) -> str:
    """A clause that names the classes that nobody knows and shows where the two lists begin to differ."""
    return (
        f"{len(unknown)} of its {len(names)} classes are not among the {len(known):,} of {whose}: "
        f"{listed(unknown)}; {_compared(unknown, names, known)}"
    )


def _compared(unknown: Sequence[str], names: Sequence[str], known: Sequence[str]) -> str:
    """Lists of one length by their first difference, else by the names nearest to the first unknown one."""
    if len(names) == len(known):
        return f"sorted, {first_difference(sorted(names), sorted(known))}"
    near = difflib.get_close_matches(unknown[0], known, n=3, cutoff=0.6)
    if near:
        return f"nearest to {unknown[0]!r}: {listed(near)}"
    return first_difference(names, known)


def listed(names: Sequence[str]) -> str:
    """The first few names, in quotes."""
    return ", ".join(map(repr, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def _shown(name: str | None) -> str:
    return "missing" if name is None else repr(name)
