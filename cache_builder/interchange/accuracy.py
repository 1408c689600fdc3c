"""How often the imported logits are right, and whether another order of the rows would make them so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets.orders import BetterOrder, OrderTally
from cache_builder.format.layout import Tile
from cache_builder.format.manifest import Manifest
from cache_builder.interchange.matching import Matched

# Records below which chance explains anything.
_ENOUGH = 8
_GUESSING, _SURE = 3.0, 4.0


@dataclass(frozen=True)
class Accuracy:
    """What labels say about imported logits."""

    right: int
    records: int
    """With a label."""
    is_guessing: bool
    """Right no more often than answers that know nothing of the samples."""
    rows: Mapping[str, float]
    """Share that is right in the first view by each plausible order of the rows, where that decides."""
    better_rows: str | None
    """The order of these under which far more are right."""
    classes: BetterOrder | None
    """Another order of the classes under which far more are right."""

    def lines(self, told: str, data: str) -> list[str]:
        """For people. ``told``: how the rows were found; ``data``: the data set's spec."""
        top1 = self.right / self.records
        lines = [
            f"teacher top-1 {top1:.2%} over {self.records:,} labelled records"
            + (f", rows {told}" if told else "")
        ]
        if self.is_guessing or self.better_rows:
            lines.append(self._warning(top1))
        if self.classes:
            lines.append(self.classes.warning(data, "import"))
        return lines

    def _warning(self, top1: float) -> str:
        why = "no more often than by guessing" if self.is_guessing else "far less often than in another order"
        warning = f"WARNING: these logits are right on {top1:.1%} of the records, {why}: "
        if not self.rows:
            return warning + "are these the rows of these samples, and their classes in this order?"
        measured = ", ".join(f"{share:.1%} by --order {name}" for name, share in self.rows.items())
        return (
            f"{warning}the rows, or the classes, are probably in another order. The first view is right on "
            f"{measured}; --order file:LIST takes any other"
        )


class AccuracyTally:
    """Counts what is right while tiles are written."""

    def __init__(self, matched: Matched, manifest: Manifest, mixes: Callable[[int], bool]) -> None:
        """``mixes``: whether a view shows several samples at once, which no label is of."""
        self._matched, self._mixes = matched, mixes
        classes = manifest.classes
        samples = manifest.data.samples
        self._labels = (
            np.full(samples, -1) if matched.labels is None else np.asarray(matched.labels, np.int64)
        )
        self._first = np.full(samples, -1, np.int64)
        self._counts = np.zeros((2, classes), np.int64)
        self._right = 0
        names = None if matched.by_name else matched.class_names
        self._classes = OrderTally(names, classes, manifest.views.count)

    def add(self, tile: Tile, best: NDArray[np.integer]) -> None:
        """``best`` [views, rows]: the class of each record's largest logit."""
        labels = self._labels[tile.row_start : tile.row_stop]
        known = labels >= 0
        for view, answers in zip(tile.views, best, strict=True):
            if view == 0:
                self._first[tile.row_start : tile.row_stop] = answers
            if not self._mixes(view):
                self._count(labels[known], answers[known])

    def _count(self, labels: NDArray[np.int64], best: NDArray[np.integer]) -> None:
        self._right += int((labels == best).sum())
        for counts, found in zip(self._counts, (labels, best), strict=True):
            counts += np.bincount(found, minlength=len(counts))
        self._classes.add(labels, best)

    def result(self) -> Accuracy | None:
        """None where no record has a label."""
        records = int(self._counts[0].sum())
        if not records:
            return None
        orders = self._matched.orders if not self._mixes(0) else {}
        rows = {name: self._share(labels) for name, labels in orders.items()}
        better = max(rows, key=lambda name: rows[name], default=None)
        is_better = better is not None and self._is_better(orders[better])
        classes = self._classes.better()
        return Accuracy(
            self._right, records, self._is_guessing(records), rows, better if is_better else None, classes
        )

    def _share(self, labels: NDArray[np.int32]) -> float:
        return float((self._first == labels)[labels >= 0].mean()) if (labels >= 0).any() else 0.0

    def _is_better(self, labels: NDArray[np.int32]) -> bool:
        """A sign test on the samples that are right in one of two orders only."""
        seen = self._first >= 0
        own, other = (self._first == self._labels)[seen], (self._first == labels)[seen]
        gained, lost = int((other & ~own).sum()), int((own & ~other).sum())
        return gained - lost > _SURE * math.sqrt(gained + lost)

    def _is_guessing(self, records: int) -> bool:
        """Within three standard deviations of what independent answers of the same classes get."""
        labels, answers = self._counts / records
        chance = float((labels * answers).sum())
        deviation = math.sqrt(chance * (1 - chance) / records)
        share = self._right / records
        return records >= _ENOUGH and share < 1 and share <= chance + _GUESSING * deviation
