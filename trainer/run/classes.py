"""Which classes a student has, and how labels and the teacher's logits meet them: always by name.

``teacher``: the teacher's C classes; labels of the data are turned into its class ids. ``data``: the C'
classes of the data alone; of the teacher's logits those columns are looked at, as they are. ``both``: the
classes have nothing to do with each other; the main head learns the data's labels, a second one the teacher's
logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets import ImageSource
from cache_builder.datasets.class_names import places_of, relabelled, require_known, unknown_classes
from cache_builder.datasets.imagenet_names import find_classes
from cache_builder.format import ConfigError, DataError, UnknownSampleError
from trainer.teacher.client import TeacherCache

ClassChoice = Literal["teacher", "data", "both"]


@dataclass(frozen=True)
class ClassPlan:
    """What a run's classes are."""

    choice: ClassChoice
    count: int
    """Outputs of the student's main head."""
    names: tuple[str, ...] | None
    """Of those outputs, in their order."""
    columns: tuple[tuple[int, ...], ...] = ()
    """data: of each cache, the teacher's class ids of the student's classes. Else empty."""
    teacher_classes: int | None = None
    """both: outputs of the second head."""
    label_names: Mapping[str, int] = field(default_factory=dict)
    """teacher: the data's own names of classes, and the teacher's class ids that they mean."""


def plan_classes(
    asked: ClassChoice | None,
    caches: Sequence[TeacherCache],
    source: ImageSource,
    learns_labels: bool,
) -> ClassPlan:
    """Decide; ``asked``: what ``--classes`` says, None = by the data.

    ``learns_labels``: whether a loss looks at labels alone. Raises :class:`ConfigError` for what cannot be
    and :class:`DataError` for labels that contradict a cache.
    """
    own = source.class_names
    if not caches:
        if asked not in (None, "data"):
            raise ConfigError(
                f"--classes {asked} is about a teacher's classes: give --cache, or leave it out"
            )
        if own is None:
            raise ConfigError(f"{source.spec} has no classes to learn: use a folder per class, or a cache")
        return ClassPlan("data", len(own), own)
    ids = [teacher_ids(cache, source) for cache in caches]
    choice = asked or _by_data(caches, source, ids[0], learns_labels)
    if choice == "teacher":
        return _teachers(caches, source, ids[0])
    if own is None or source.labels is None:
        raise ConfigError(
            f"--classes {choice}: {source.spec} has no classes of its own (no folder per class)"
        )
    if choice == "both":
        return ClassPlan("both", len(own), own, teacher_classes=caches[0].manifest.classes)
    return ClassPlan(
        "data", len(own), own, tuple(_columns(*pair, source) for pair in zip(caches, ids, strict=True))
    )


def teacher_ids(cache: TeacherCache, source: ImageSource) -> NDArray[np.int32] | None:
    """The teacher's class id of each of the data's classes [C'], -1 where nothing tells.

    By name; where the names differ, by the labels that the cache has for the same samples, which a build with
    ``--class-map`` or ImageNet's other spellings turned into ids; by position only where the teacher's
    classes have no names and are as many. None for data without classes. Raises :class:`DataError` where
    samples contradict that.
    """
    own = source.class_names
    if own is None:
        return None
    known = cache.class_names
    if known:
        ids = find_classes(known, own).places
    else:
        counted = len(own) == cache.manifest.classes
        ids = np.arange(len(own), dtype=np.int32) if counted else np.full(len(own), -1, np.int32)
    return ids if source.labels is None else _met_by_samples(cache, source, source.labels, ids)


def _met_by_samples(
    cache: TeacherCache, source: ImageSource, labels: NDArray[np.int32], ids: NDArray[np.int32]
) -> NDArray[np.int32]:
    try:
        cached = cache.labels[cache.rows_for(source.ids)]
    except UnknownSampleError:
        return ids  # told with what to do where rows are matched
    both = np.flatnonzero((cached >= 0) & (labels >= 0))
    met = ids.copy()
    unknown = both[ids[labels[both]] < 0]
    # The first sample of a class decides, so that a later one can contradict it.
    met[labels[unknown][::-1]] = cached[unknown][::-1]
    differs = both[met[labels[both]] != cached[both]]
    if differs.size:
        first = int(differs[0])
        raise DataError(
            f"{source.spec}: the labels of {differs.size} samples differ from the cache's, e.g. "
            f"{source.ids[first]!r} has {_called(source.class_names, labels[first])} and was "
            f"{_called(cache.class_names, cached[first])}: were class folders renamed, "
            "added or removed?"
        )
    return met


def _called(names: Sequence[str] | None, class_id: int) -> str:
    return repr(names[class_id]) if names and class_id < len(names) else str(class_id)


def _by_data(
    caches: Sequence[TeacherCache],
    source: ImageSource,
    ids: NDArray[np.int32] | None,
    learns_labels: bool,
) -> ClassChoice:
    """``both`` where the data has labels that are none of the teacher's and a loss would learn them."""
    own_labels = source.labels is not None and ids is not None and bool((ids < 0).any())
    taught = any(bool((cache.labels >= 0).any()) for cache in caches)
    return "both" if learns_labels and own_labels and not taught else "teacher"


def _teachers(
    caches: Sequence[TeacherCache], source: ImageSource, ids: NDArray[np.int32] | None
) -> ClassPlan:
    classes = caches[0].manifest.classes
    named = (cache.class_names for cache in caches)
    own = source.class_names if source.class_names and len(source.class_names) == classes else None
    names = next(filter(None, named), own)
    pairs = zip(source.class_names or (), () if ids is None else ids.tolist(), strict=True)
    return ClassPlan(
        "teacher", classes, names, label_names={name: place for name, place in pairs if place >= 0}
    )


def _columns(cache: TeacherCache, ids: NDArray[np.int32] | None, source: ImageSource) -> tuple[int, ...]:
    own, known = source.class_names or (), cache.class_names
    if ids is None or (ids < 0).any():
        if known:
            missing = [
                name for name, place in zip(own, ids if ids is not None else (), strict=True) if place < 0
            ]
            require_known(missing, known, source.spec, f"the teacher of cache {cache.manifest.name!r}", _WAYS)
        raise DataError(
            f"--classes data: nobody named the classes of the teacher of cache {cache.manifest.name!r}, so "
            f"those of {source.spec} cannot be found among them; {_WAYS}"
        )
    return tuple(ids.tolist())


_WAYS = (
    "--classes both trains a second head on the teacher's classes and needs no names in common; kdcache "
    "build --class-map FILE says which class of the teacher each folder is"
)


def held_out_labels(source: ImageSource, student: ClassPlan) -> NDArray[np.int32] | None:
    """Labels of held-out data in the student's numbering, by name; None where it has none.

    A class that has no picture there is no contradiction. Raises :class:`DataError` for one that the student
    does not have, with the first difference of the names.
    """
    own, labels = source.class_names, source.labels
    if own is None or labels is None:
        return labels
    if student.names is None:
        _check_counts(source.spec, len(own), student)
        return labels
    # Held-out folders are mostly named as the training data's; those names come first.
    known = {name: place for place, name in enumerate(student.names)} | dict(student.label_names)
    places = places_of(own, known)
    for names in (student.names, tuple(student.label_names)):
        if (places < 0).any() and names:
            spelled = find_classes(names, own).places
            ids = np.array([known[name] for name in names], np.int32)
            places = np.where((places < 0) & (spelled >= 0), ids[spelled], places)
    shown = np.unique(labels[labels >= 0])
    unknown = [own[label] for label in shown if places[label] < 0]
    if unknown:
        told = unknown_classes(unknown, [own[label] for label in shown], list(known), "the student")
        raise DataError(f"{source.spec}: {told}; {_remedy(student)}")
    return relabelled(labels, places)


def _check_counts(spec: str, found: int, student: ClassPlan) -> None:
    if found != student.count:
        raise DataError(
            f"{spec} has {found} classes, the student has {student.count}, and nobody named the student's: "
            f"{_remedy(student)}"
        )


def _remedy(student: ClassPlan) -> str:
    if student.choice == "teacher":
        return (
            "evaluate on data of the same class names, or train with --classes both (a head of its own for "
            "the data's labels)"
        )
    return "evaluate on data of the same class names"
