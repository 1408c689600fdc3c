"""Ids that others wrote, found among the samples of a data set; of one that is not there, what is like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import DataError
from cache_builder.format.near_ids import near_ids, told_near

_NAMED = 3
_SHOWN = 200


def find_samples(
    keys: Sequence[str], ids: Sequence[str], where: str, spec: str, with_prefix: bool = False
) -> NDArray[np.int64]:
    """The index of each key among the ids: the id itself, or the only one that has it before its suffix.

    ``with_prefix``: keys may be paths that lie below one folder, which is taken off. ``where``: whose keys
    these are, ``spec``: whose ids. Raises :class:`DataError` for a key that is no id, saying which are like
    it, and for two keys that are one sample.
    """
    search = _Search(ids)
    found = search.places(keys)
    if with_prefix and (found < 0).any():
        prefix = search.prefix_of(keys[int(np.argmax(found < 0))])
        found = search.places([key.removeprefix(prefix) for key in keys]) if prefix else found
    unknown = [key for key, place in zip(keys, found, strict=True) if place < 0]
    if unknown:
        more = ", ..." if len(unknown) > _NAMED else ""
        raise DataError(
            f"{len(unknown):,} of {len(keys):,} samples of {where} are not in {spec}: "
            f"{', '.join(map(_shown, unknown[:_NAMED]))}{more}{search.like(unknown[0])}"
        )
    _check_once(keys, ids, found, where)
    return found


def _check_once(keys: Sequence[str], ids: Sequence[str], found: NDArray[np.int64], where: str) -> None:
    places, counts = np.unique(found, return_counts=True)
    if (counts > 1).any():
        place = int(places[np.argmax(counts > 1)])
        first, second = np.flatnonzero(found == place)[:2].tolist()
        raise DataError(
            f"{where}: rows {first} and {second} (counted from 0), {_shown(keys[first])} and "
            f"{_shown(keys[second])}, are both sample {_shown(ids[place])}"
        )


class _Search:
    """Ids by what they are called, with and without suffix."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._places: Mapping[str, int] = {sample_id: place for place, sample_id in enumerate(ids)}
        self._stems: Mapping[str, int] | None = None

    def places(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """The place of each key, -1 for one that is not there."""
        found = [self._places.get(key, -1) for key in keys]
        if min(found, default=0) < 0:
            stems = self._by_stem()
            found = [
                stems.get(key, -1) if place < 0 else place for key, place in zip(keys, found, strict=True)
            ]
        return np.array(found, np.int64)

    def prefix_of(self, key: str) -> str:
        """The folder before the part of a path that is an id; empty where no part is."""
        ends = [place + 1 for place, letter in enumerate(key) if letter == "/"]
        return next((key[:end] for end in ends if key[end:] in self._places), "")

    def like(self, key: str) -> str:
        """A clause about the ids that an unknown one may have been meant as."""
        return told_near(key, near_ids(key, self._ids)) if len(key) <= _SHOWN else ""

    def _by_stem(self) -> Mapping[str, int]:
        """Ids without suffix; those that several samples share are left out."""
        if self._stems is None:
            stems: dict[str, int] = {}
            twice = set()
            for place, sample_id in enumerate(self._ids):
                stem = _stem(sample_id)
                twice |= {stem} & stems.keys()
                stems[stem] = place
            self._stems = {stem: place for stem, place in stems.items() if stem not in twice}
        return self._stems


def _stem(sample_id: str) -> str:
    return PurePosixPath(sample_id).with_suffix("").as_posix() if sample_id.strip("/.") else sample_id


def _shown(key: str) -> str:
    return repr(key) if len(key) <= _SHOWN else f"{key[:_SHOWN]!r}... ({len(key):,} letters)"
