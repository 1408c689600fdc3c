"""Whose class is whose: the labels of a data set in the numbering of its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cache_builder.build.settings import BuildSettings
from cache_builder.console.names import with_classes
from cache_builder.datasets import ImageSource, imagenet_names
from cache_builder.datasets.class_map import read_class_map
from cache_builder.datasets.class_names import (
    are_numbers,
    class_key,
    listed,
    relabelled,
    unknown_classes,
)
from cache_builder.datasets.orders import BY_POSITION
from cache_builder.datasets.spellings import Found
from cache_builder.format.errors import ConfigError, DataError

BY_NAME = "matched by name"
_Kind = Literal["name", "position", "file"]
_KINDS: Mapping[str, _Kind] = {BY_NAME: "name", BY_POSITION: "position"}


class NamedTeacher(Protocol):
    """What is known of a teacher here: a ``Teacher``, or one that is not built yet."""

    @property
    def spec(self) -> str:
        """Resolved name."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """In the order of its logits."""


@dataclass(frozen=True)
class FittedLabels:
    """Labels by the teacher's numbering, and how they came about."""

    labels: NDArray[np.int32] | None
    """Class ids of the teacher [N], -1 where a sample has none; None where there are no labels."""
    class_names: tuple[str, ...] | None
    """The teacher's C names; where nobody named its classes, those of the data that has as many."""
    own_class_names: tuple[str, ...] | None = None
    """Of data whose classes are not the teacher's (``--ignore-labels``)."""
    data_names: tuple[str, ...] | None = None
    """Of data whose classes are the teacher's by nothing but their position."""
    matched: _Kind | None = None
    """What the classes of the data were matched with the teacher's by; None without labels."""
    told: Mapping[str, str] = field(default_factory=dict)
    """For the manifest's ``environment``: where labels and class names came from."""


def fit_labels(
    settings: BuildSettings, source: ImageSource, teacher: NamedTeacher, classes: int
) -> FittedLabels:
    """Labels and class names that fit the teacher's C logits.

    Where both sides name their classes they are matched by name; else their number decides, and position.
    Raises :class:`ConfigError` or :class:`DataError` where they cannot be matched.
    """
    _check_teacher(teacher, classes)
    if settings.ignore_labels and settings.class_map:
        raise ConfigError("--class-map says whose labels these are, --ignore-labels drops them: give one")
    if settings.ignore_labels:
        return FittedLabels(None, teacher.class_names, own_class_names=source.class_names)
    if not source.class_names or source.labels is None:
        return FittedLabels(None, teacher.class_names)
    matching = _Matching(settings, source.class_names, teacher, classes)
    places, names, how, origin = matching.matched()
    labels = relabelled(source.labels, places)
    counted = _counted(labels, places, source.class_names, classes)
    told = {"labels": f"{counted}, {how}"}
    if origin:
        told["class names"] = origin
    kind: _Kind = _KINDS.get(how, "file")
    by_position = source.class_names if kind == "position" else None
    return FittedLabels(labels, names, None, by_position, kind, told)


@dataclass(frozen=True)
class StoredClasses:
    """The classes of a cache that is there already."""

    ids: Sequence[str]
    labels: NDArray[np.int32]
    """Class ids of its teacher [N], -1 for none."""
    classes: int
    class_names: tuple[str, ...] | None


def fit_stored(stored: StoredClasses, source: ImageSource) -> FittedLabels:
    """The labels of a data set by the numbering of a cache, which may have matched them by a file."""
    if (stored.labels < 0).all() or source.labels is None or not source.class_names:
        return FittedLabels(None, stored.class_names)
    agreed = agreement(stored.labels, stored.class_names, source.labels, source.class_names)
    return FittedLabels(agreed.labels, stored.class_names)


@dataclass(frozen=True)
class Agreement:
    """Labels of a data set by the numbering of a cache of the same samples."""

    labels: NDArray[np.int32]
    """[N], -1 for none."""
    how: str
    """What the classes were matched by."""


def agreement(
    cached: NDArray[np.int32],
    known: tuple[str, ...] | None,
    labels: NDArray[np.int32],
    names: tuple[str, ...],
) -> Agreement:
    """Bring ``labels`` [N] of a data set with these class names to the numbering of ``cached`` [N].

    By name where the cache has all of the names; by position where one side has numbers only, or no names;
    else each class is the one that most of its samples have in the cache, so that a sample that moved to
    another class still shows.
    """
    found = (
        imagenet_names.find_classes(known, names)
        if known and are_numbers(names) == are_numbers(known)
        else None
    )
    if found and found.is_whole:
        return Agreement(relabelled(labels, found.places), BY_NAME)
    is_same = len(cached) == len(labels) and bool((cached == labels)[cached >= 0].all())
    if is_same or (known and not found and len(known) == len(names)):
        return Agreement(labels, BY_POSITION)
    return Agreement(relabelled(labels, _majority(cached, labels, len(names))), "matched by the samples' ids")


def _majority(cached: NDArray[np.int32], labels: NDArray[np.int32], names: int) -> NDArray[np.int32]:
    """The cached label that most samples of each class have; -1 for a class without a cached label."""
    places = np.full(names, -1, np.int32)
    for label in range(names):
        own = cached[: len(labels)][labels[: len(cached)] == label]
        own = own[own >= 0]
        if own.size:
            places[label] = np.bincount(own).argmax()
    return places


def _check_teacher(teacher: NamedTeacher, classes: int) -> None:
    if classes < 2:
        raise ConfigError(
            f"teacher {teacher.spec} has {classes} logit per image, expected one for each of two classes or "
            "more (a random head has as many as the data set has class folders)"
        )
    if teacher.class_names and len(teacher.class_names) != classes:
        raise ConfigError(
            f"teacher {teacher.spec} has {classes} logits, its weights name {len(teacher.class_names)} "
            "classes"
        )


def _counted(labels: NDArray[np.int32], places: NDArray[np.int32], names: Sequence[str], classes: int) -> str:
    """How many of the teacher's classes the data has, and which have no pictures."""
    there = np.isin(places, labels)
    if 2 * there.sum() < len(places):
        return f"{there.sum():,} of the teacher's {classes:,} classes"
    counted = f"{len(names):,} of the teacher's {classes:,} classes"
    empty = [name for name, has_pictures in zip(names, there, strict=True) if not has_pictures]
    told = f" ({len(empty):,} without pictures: {listed(empty)})" if empty else ""
    return (counted if len(names) < classes else f"{classes:,} classes") + told


_Match = tuple[NDArray[np.int32], tuple[str, ...] | None, str, str | None]
"""Teacher's class id of each class of the data, the teacher's names, how they were matched, whose names."""


class _Matching:
    """The classes of a data set and those of a teacher."""

    def __init__(
        self, settings: BuildSettings, names: tuple[str, ...], teacher: NamedTeacher, classes: int
    ) -> None:
        self._settings, self._names, self._teacher, self._classes = settings, names, teacher, classes

    def matched(self) -> _Match:
        """By ``--class-map``, by the names of both, by names that may be assumed, or by position."""
        known = self._teacher.class_names
        if self._settings.class_map:
            return self._mapped(self._settings.class_map, known)
        if known is not None and not self._only_numbers(known):
            return self._found(known, imagenet_names.find_classes(known, self._names)), known, BY_NAME, None
        assumed = None if known or self._is_random() else self._assumed()
        if assumed:
            names, found = assumed
            return self._found(names, found), names, BY_NAME, self._assumption()
        if len(self._names) != self._classes:
            raise ConfigError(self._other_number())
        return np.arange(self._classes, dtype=np.int32), known or self._names, BY_POSITION, None

    def _only_numbers(self, known: Sequence[str]) -> bool:
        """Whether one side has nothing but numbers for names, and the other words."""
        return are_numbers(self._names) != are_numbers(known)

    def _is_random(self) -> bool:
        """A head with random weights means no class; it has as many outputs as the data has classes."""
        return "random" in (self._settings.weights or ())

    def _assumed(self) -> tuple[tuple[str, ...], Found] | None:
        return imagenet_names.assumed_names(self._classes, self._names)

    def _assumption(self) -> str:
        """Why names that the teacher does not bring are taken for its own."""
        if self._teacher.spec.startswith(("torchvision:", "timm:")):
            return "ImageNet-1k's, assumed from the architecture's published weights"
        return "ImageNet-1k's, assumed from the teacher's 1,000 outputs and the names of the data"

    def _found(self, known: Sequence[str], found: Found) -> NDArray[np.int32]:
        if found.unknown:
            told = unknown_classes(found.unknown, self._names, known, f"teacher {self._teacher.spec}")
            raise DataError(f"{self._settings.data}: {told}. {self._ways(found.unknown[0], known[0])}")
        if found.ambiguous:
            raise DataError(f"{self._settings.data}: {_told_ambiguous(found, known)}")
        if found.doubled:
            first, second = found.doubled[0]
            raise DataError(
                f"{self._settings.data}: classes {first!r} and {second!r} are one class of teacher "
                f"{self._teacher.spec}: join them, or say with --class-map FILE that both are meant"
            )
        return found.places

    def _mapped(self, path: str, known: tuple[str, ...] | None) -> _Match:
        table = read_class_map(path)
        targets = [table.get(class_key(name), name) for name in self._names]
        names = known or self._named_targets(targets)
        ids = [self._target(path, *pair, names) for pair in zip(self._names, targets, strict=True)]
        how = f"matched by {path}"
        return np.array(ids, np.int32), names, how, self._assumption() if names and not known else None

    def _named_targets(self, targets: Sequence[str]) -> tuple[str, ...] | None:
        """ImageNet's names where a map to a teacher whose classes nobody named uses them."""
        words = [target for target in targets if not target.isdecimal()]
        assumed = imagenet_names.assumed_names(self._classes, words) if words else None
        return assumed[0] if assumed else None

    def _target(self, path: str, name: str, target: str, known: tuple[str, ...] | None) -> int:
        """The class id that a class of the data is mapped to."""
        found = (
            imagenet_names.find_classes(known, [target])
            if known
            else Found(np.array([-1], np.int32), (target,))
        )
        if found.is_whole:
            return int(found.places[0])
        if found.ambiguous:
            raise DataError(f"--class-map {path}: {_told_ambiguous(found, known or ())}")
        if target.isdecimal() and int(target) < self._classes:
            return int(target)
        whose = f"the names of teacher {self._teacher.spec}" if known else "known, its classes have no names"
        raise DataError(
            f"--class-map {path}: class {name!r} of {self._settings.data} is to be {target!r}, which is not "
            f"among {whose}, nor a class id from 0 to {self._classes - 1}"
        )

    def _other_number(self) -> str:
        """Where there is nothing but the numbers of classes, and they differ."""
        known = self._teacher.class_names
        compared = f"the teacher's are called {listed(known)}" if known else "nobody named the teacher's"
        return (
            f"teacher {self._teacher.spec} has {self._classes:,} logits, {self._settings.data} has "
            f"{len(self._names):,} classes ({listed(self._names)}), and {compared}. "
            f"{self._ways(self._names[0], '0')}{self._timm_hint()}"
        )

    def _timm_hint(self) -> str:
        wanted = self._classes == imagenet_names.CLASSES and imagenet_names.are_wnids(self._names)
        if not wanted or imagenet_names.has_timm():
            return ""
        return "\nThe classes bear WordNet ids: pip install 'kdcache[timm]' knows which classes these are"

    def _ways(self, ours: str, theirs: str) -> str:
        """What can be done, for a class of the data that is none of the teacher's."""
        return (
            f"Three ways on:\n"
            f"  they are some of the teacher's classes: rename them, or --class-map FILE with lines such as "
            f"'{ours} = {theirs}'{self._listing()}\n"
            f"  they are other classes: --ignore-labels here stores the teacher's logits without labels, and "
            f"kdtrain --classes both trains a student with a head of its own for them\n"
            f"  take a teacher of these classes: another --teacher, or --weights"
        )

    def _listing(self) -> str:
        """How the data's spec can say the order of classes that the teacher does not name."""
        data = self._settings.data
        if "classes=" in data:
            return ""
        if are_numbers(self._names):
            by_number = quote(with_classes(data, str(self._classes)))
            return f"; where their names are its class ids, --data {by_number}"
        if self._teacher.class_names:
            return ""
        names = f"the names of all {self._classes:,}, one a line in the teacher's order"
        return f", or --data {quote(with_classes(data, 'FILE'))} with {names}"


def _told_ambiguous(found: Found, known: Sequence[str]) -> str:
    name, places = next(iter(found.ambiguous.items()))
    meant = " or ".join(f"{place} ({known[place]!r})" for place in places)
    count = len(found.ambiguous)
    return (
        f"class {name!r} may be the teacher's class {meant}"
        + (f", and {count - 1} more names are as ambiguous" if count > 1 else "")
        + f": name it by its WordNet id, or say which with --class-map FILE, a line such as "
        f"'{name} = {places[0]}'"
    )
