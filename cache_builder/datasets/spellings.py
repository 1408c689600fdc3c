"""Every spelling of the classes of one numbering, and which class a name is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets.class_names import class_key, unique_places


@dataclass(frozen=True)
class Found:
    """Where the classes of a data set are among known ones."""

    places: NDArray[np.int32]
    """Class id of each name, -1 where there is none: int32 [names]."""
    unknown: tuple[str, ...] = ()
    """Names that are no spelling of any class."""
    ambiguous: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Names that are a spelling of several classes, with their ids."""
    doubled: tuple[tuple[str, str], ...] = ()
    """Pairs of names that are the same class."""

    @property
    def is_whole(self) -> bool:
        """Whether every name is one class, and each another."""
        return not (self.unknown or self.ambiguous or self.doubled)


@dataclass(frozen=True)
class Spellings:
    """The names of C classes in the order of their ids, and what else they are called."""

    names: tuple[str, ...]
    more: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Ids by further spelling, these as ``key`` makes them."""
    key: Callable[[str], str] = class_key
    """What is compared of a name."""

    def candidates(self, name: str) -> frozenset[int]:
        """Ids of all classes that are called so."""
        key = self.key(name)
        return self._own.get(key, frozenset()) | self.more.get(key, frozenset())

    def find(self, names: Sequence[str]) -> Found:
        """The class of each name.

        A list in which every name fits its own place is that list. Of several classes that a name may be,
        those fall away that other names are; a name that is then still several is ambiguous.
        """
        candidates = [self.candidates(name) for name in names]
        if len(names) == len(self.names) and all(place in found for place, found in enumerate(candidates)):
            return Found(np.arange(len(names), dtype=np.int32))
        chosen = self._chosen(names, candidates)
        places = np.array([-1 if place is None else place for place in chosen], np.int32)
        several = zip(names, candidates, chosen, strict=True)
        return Found(
            places,
            tuple(name for name, found in zip(names, candidates, strict=True) if not found),
            {name: tuple(sorted(found)) for name, found, place in several if place is None and found},
            tuple(_doubled(names, chosen)),
        )

    def _chosen(self, names: Sequence[str], candidates: list[frozenset[int]]) -> list[int | None]:
        exact = [self._exact.get(name) for name in names]
        taken = {place for place in exact if place is not None}
        taken |= {next(iter(found)) for found in candidates if len(found) == 1}
        return [_decided(found, own, taken) for found, own in zip(candidates, exact, strict=True)]

    @cached_property
    def _exact(self) -> dict[str, int]:
        return unique_places(enumerate(self.names))

    @cached_property
    def _own(self) -> dict[str, frozenset[int]]:
        own: dict[str, frozenset[int]] = {}
        for place, name in enumerate(self.names):
            key = self.key(name)
            own[key] = own.get(key, frozenset()) | {place}
        return own


def _decided(found: frozenset[int], own: int | None, taken: set[int]) -> int | None:
    """The one class of a name, None where it could be several. ``own``: the class with just this name."""
    if len(found) == 1:
        return next(iter(found))
    others = found - taken
    if own is not None and not others:
        return own
    return next(iter(others)) if len(others) == 1 and own is None else None


def _doubled(names: Sequence[str], places: Sequence[int | None]) -> list[tuple[str, str]]:
    first: dict[int, str] = {}
    pairs = []
    for name, place in zip(names, places, strict=True):
        if place is not None and first.setdefault(place, name) != name:
            pairs.append((first[place], name))
    return pairs
