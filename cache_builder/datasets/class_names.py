"""Classes matched by their names: where two sides name their classes, position decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import DataError

_NAMED = 5


def places_of(names: Sequence[str], known: Sequence[str] | Mapping[str, int]) -> NDArray[np.int32]:
    """The place of each name among the known ones, -1 for a name that is not among them: int32 [names].

    ``known``: names in the order of their class ids, or a mapping from every spelling to its class id.
    """
    ids = known if isinstance(known, Mapping) else {name: place for place, name in enumerate(known)}
    return np.array([ids.get(name, -1) for name in names], np.int32)


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
        named = ", ".join(map(repr, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
        raise DataError(
            f"{where}: {len(unknown)} of its {len(names)} classes are not among the {len(known)} of {whose}: "
            f"{named}; sorted, {first_difference(sorted(names), sorted(known))}; {remedy}"
        )
    return places


def _shown(name: str | None) -> str:
    return "missing" if name is None else repr(name)
