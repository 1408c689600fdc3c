"""Rows of a dump and samples of a data set: which is which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from cache_builder.console.names import with_classes
from cache_builder.datasets import ImageSource, Sample, decoding_of, left_out_of, open_source
from cache_builder.datasets.class_names import relabelled
from cache_builder.datasets.imagenet_names import assumed_names
from cache_builder.datasets.pixels import NEWEST
from cache_builder.datasets.source import Wrapped
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.frozen import Decoding
from cache_builder.format.ids import DecimalIds
from cache_builder.interchange.id_search import find_samples
from cache_builder.interchange.row_order import RowOrder, listed_ids, order_rows, plausible_orders
from cache_builder.interchange.sources import Dump


class RowSource:
    """A data set in the order of a cache's rows."""

    def __init__(self, source: ImageSource, indices: NDArray[np.int64]) -> None:
        self._source, self._indices = source, indices
        self.spec = source.spec
        self.class_names = source.class_names
        self.reads_files, self.side, self.mirrors = source.reads_files, source.side, source.mirrors
        self.decoding, self.left_out = decoding_of(source), left_out_of(source)
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
    told: str = ""
    """How the rows were found, for people."""
    by_name: bool = False
    """Whether the classes were matched by their names."""
    orders: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    """Labels [N] that the rows would have by each plausible order of them, under the names of ``--order``."""

    def digests(self, rows: range) -> NDArray[np.uint64]:
        """Of the samples of consecutive rows; 0 where nobody can look."""
        if self.source is None:
            return np.zeros(len(rows), np.uint64)
        return np.array([self.source.read(row).digest for row in rows], np.uint64)


def match(
    dump: Dump, data: str | None, where: Path, order: str | None = None, decoding: Decoding = NEWEST
) -> Matched:
    """Names of the rows: the data set's where one is given, else the dump's, else decimal numbers.

    ``order``: of the rows, where the dump does not name them. Raises :class:`DataError` naming rows that the
    data set does not have, or labels that contradict it, and :class:`ConfigError` for rows without an order.
    """
    if order is not None and dump.ids is not None:
        raise ConfigError(
            f"--order {order}: the rows have ids (of the dump, or by --ids), which say it already"
        )
    if data is None:
        return _unseen(dump, order)
    source, class_names, by_name = _numbered(open_source(data, decoding), dump.classes, where)
    found = _ordered(dump, source, where, order)
    rows = RowSource(source, found.indices)
    orders = _labels_by_order(dump, source) if found.by_position else {}
    if dump.labels is not None and rows.labels is not None:
        _check_labels(dump.labels, rows, orders, where)
    labels = rows.labels if rows.labels is not None else dump.labels
    return Matched(rows.ids, labels, class_names, rows, found.told, by_name, orders)


def _unseen(dump: Dump, order: str | None) -> Matched:
    """Rows of no data set."""
    if order in ("torchvision", "path"):
        raise ConfigError(f"--order {order} is one of the samples of a data set: add --data, or give --ids")
    ids = dump.ids if dump.ids is not None else listed_ids(order, len(dump))
    return Matched(DecimalIds(len(dump)) if ids is None else ids, dump.labels, None, None)


def _ordered(dump: Dump, source: ImageSource, where: Path, order: str | None) -> RowOrder:
    if dump.ids is None:
        return order_rows(order, len(dump), source, str(where))
    indices = find_samples(dump.ids, source.ids, str(where), source.spec)
    return RowOrder(indices, "by their ids", by_position=False)


def _labels_by_order(dump: Dump, source: ImageSource) -> dict[str, NDArray[np.int32]]:
    labels = source.labels
    if labels is None:
        return {}
    return {name: labels[indices] for name, indices in plausible_orders(len(dump), source).items()}


def _check_labels(
    given: NDArray[np.int32], rows: RowSource, orders: Mapping[str, NDArray[np.int32]], where: Path
) -> None:
    """Raise :class:`DataError` where the dump's labels are not those of its rows, saying whose they are."""
    assert rows.labels is not None
    differing = np.flatnonzero((given != rows.labels) & (given >= 0))
    if not differing.size:
        return
    row = int(differing[0])
    fitting = [name for name, labels in orders.items() if ((given == labels) | (given < 0)).all()]
    hint = f"they are those of --order {fitting[0]}" if fitting else "other rows, or other classes"
    raise DataError(
        f"{differing.size} labels of {where} are not those of {rows.spec}, the first is of "
        f"{rows.ids[row]!r}: {given[row]} and {rows.labels[row]}: {hint}"
    )


def _numbered(
    source: ImageSource, classes: int, where: Path
) -> tuple[ImageSource, tuple[str, ...] | None, bool]:
    """The data set with labels by the dump's numbering, the names of its classes, and whether names matched.

    A dump names no classes: where it has 1,000 and all of the data's are ImageNet's, they are matched by
    name, else their number must be the same.
    """
    names = source.class_names
    if names is None or source.labels is None:
        return source, None, False
    assumed = assumed_names(classes, names)
    if assumed and assumed[1].is_whole:
        return Renumbered(source, relabelled(source.labels, assumed[1].places)), assumed[0], True
    if len(names) != classes:
        raise ConfigError(
            f"{where} has {classes:,} classes, {source.spec} has {len(names):,}: its labels would be "
            f"of other classes. Give the names of all {classes:,} in the dump's order: --data "
            f"{quote(with_classes(source.spec, 'FILE'))}, one a line; a class may lack pictures"
        )
    return source, names, False
