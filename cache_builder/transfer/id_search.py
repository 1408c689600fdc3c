"""Ids that others wrote, found among the samples of a data set; of one that is not there, what is like it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import DataError

_NAMED = 3
_SHOWN = 200
# Ids that are compared letter by letter with one that is unknown: 20,000 take a second.
_COMPARED = 20_000


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
        plain = unicodedata.normalize("NFC", key)
        same = [sample_id for sample_id in self._ids if unicodedata.normalize("NFC", sample_id) == plain]
        if same:
            other = same[0]
            return (
                f"; {_shown(key)} ({ascii(key)[:_SHOWN]}, {_form(key)}) is {_shown(other)} "
                f"({ascii(other)[:_SHOWN]}, {_form(other)}) there, the same letters in another Unicode "
                "normal form: ids are compared byte by byte, so write both in one (unicodedata.normalize)"
            )
        near = difflib.get_close_matches(key[:_SHOWN], self._neighbours(key), n=_NAMED, cutoff=0.6)
        return f"; near {_shown(key)}: {', '.join(map(_shown, near))}" if near else ""

    def _neighbours(self, key: str) -> list[str]:
        """Ids of the same folder first: there may be a million."""
        folder = key.rpartition("/")[0]
        own = [sample_id for sample_id in self._ids if sample_id.rpartition("/")[0] == folder]
        chosen = own or self._ids
        return [sample_id for sample_id in chosen[:_COMPARED] if len(sample_id) <= 2 * _SHOWN]

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


def _form(text: str) -> str:
    return next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, text)), "neither")


def _shown(key: str) -> str:
    return repr(key) if len(key) <= _SHOWN else f"{key[:_SHOWN]!r}... ({len(key):,} letters)"
