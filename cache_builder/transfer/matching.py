"""Rows of a dump and samples of a data set: which is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets import ImageSource, Sample, open_source
from cache_builder.datasets.class_names import relabelled
from cache_builder.datasets.source import Wrapped
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.ids import DecimalIds
from cache_builder.names import with_classes
from cache_builder.teachers.imagenet_names import assumed_names
from cache_builder.transfer.sources import Dump

_NAMED = 3


class RowSource:
    """A data set in the order of a cache's rows."""

    def __init__(self, source: ImageSource, indices: NDArray[np.int64]) -> None:
        self._source, self._indices = source, indices
        self.spec = source.spec
        self.class_names = source.class_names
        self.reads_files, self.side, self.mirrors = source.reads_files, source.side, source.mirrors
        self.ids: Sequence[str] = [source.ids[int(index)] for index in indices]
        self.labels: NDArray[np.int32] | None = None if source.labels is None else source.labels[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> Sample:
        """The sample of a row."""
        return self._source.read(int(self._indices[index]))


class Renumbered(Wrapped):
    """A data set with its labels in another numbering."""

    def __init__(self, source: ImageSource, labels: NDArray[np.int32]) -> None:
        super().__init__(source)
        self.labels = labels


@dataclass(frozen=True)
class Matched:
    """What names the rows of an imported cache."""

    ids: Sequence[str]
    labels: NDArray[np.int32] | None
    class_names: tuple[str, ...] | None
    source: RowSource | None
    """The data set by rows, where one was given."""

    def digests(self, rows: range) -> NDArray[np.uint64]:
        """Of the samples of consecutive rows; 0 where nobody can look."""
        if self.source is None:
            return np.zeros(len(rows), np.uint64)
        return np.array([self.source.read(row).digest for row in rows], np.uint64)


def match(dump: Dump, data: str | None, where: Path) -> Matched:
    """Names of the rows: the data set's where one is given, else the dump's, else decimal numbers.

    Raises :class:`DataError` naming rows that the data set does not have, or labels that contradict it.
    """
    if data is None:
        ids = dump.ids if dump.ids is not None else DecimalIds(len(dump))
        return Matched(ids, dump.labels, None, None)
    source, class_names = _numbered(open_source(data), dump.classes, where)
    rows = RowSource(source, _indices(dump, source, where))
    if dump.labels is not None and rows.labels is not None:
        differing = np.flatnonzero((dump.labels != rows.labels) & (dump.labels >= 0))
        if differing.size:
            row = int(differing[0])
            raise DataError(
                f"{differing.size} labels of {where} are not those of {data}, the first is of "
                f"{rows.ids[row]!r}: {dump.labels[row]} and {rows.labels[row]}: other rows, or other classes"
            )
    labels = rows.labels if rows.labels is not None else dump.labels
    return Matched(rows.ids, labels, class_names, rows)


def _numbered(source: ImageSource, classes: int, where: Path) -> tuple[ImageSource, tuple[str, ...] | None]:
    """The data set with labels by the dump's numbering, and the names of the dump's classes.

    A dump names no classes: where it has 1,000 and all of the data's are ImageNet's, they are matched by
    name, else their number must be the same.
    """
    names = source.class_names
    if names is None or source.labels is None:
        return source, None
    assumed = assumed_names(classes, names)
    if assumed and assumed[1].is_whole:
        return Renumbered(source, relabelled(source.labels, assumed[1].places)), assumed[0]
    if len(names) != classes:
        raise ConfigError(
            f"{where} has {classes:,} classes, {source.spec} has {len(names):,}: its labels would be "
            f"of other classes. Give the names of all {classes:,} in the dump's order: --data "
            f"{quote(with_classes(source.spec, 'FILE'))}, one a line; a class may lack pictures"
        )
    return source, names


def _indices(dump: Dump, source: ImageSource, where: Path) -> NDArray[np.int64]:
    """The sample of each row: by id, by id without suffix, or by position where the dump has no ids."""
    if dump.ids is None:
        if len(dump) != len(source):
            raise DataError(
                f"{where} has {len(dump)} rows and no ids, {source.spec} {len(source)} samples: which row is "
                "which sample? give --ids"
            )
        return np.arange(len(dump))
    by_id = {sample_id: index for index, sample_id in enumerate(source.ids)}
    found = [by_id.get(key, -1) for key in dump.ids]
    if min(found) < 0:
        stems = _by_stem(source.ids)
        found = [
            index if index >= 0 else stems.get(key, -1) for key, index in zip(dump.ids, found, strict=True)
        ]
    unknown = [key for key, index in zip(dump.ids, found, strict=True) if index < 0]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(dump)} samples of {where} are not in {source.spec}: "
            f"{', '.join(repr(key) for key in unknown[:_NAMED])}"
        )
    return np.array(found, np.int64)


def _by_stem(ids: Sequence[str]) -> dict[str, int]:
    """Ids without suffix; those that several samples share are left out."""
    stems: dict[str, int] = {}
    twice = set()
    for index, sample_id in enumerate(ids):
        stem = PurePosixPath(sample_id).with_suffix("").as_posix() if sample_id.strip("/.") else sample_id
        if stem in stems:
            twice.add(stem)
        stems[stem] = index
    return {stem: index for stem, index in stems.items() if stem not in twice}
