"""Another order of the classes under which the teacher is right far more often: probably the order it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.console.names import natural_key, with_classes

BY_POSITION = "matched by position"
"""How the summary of a build calls labels that nobody's class names matched."""

# One-sided p = 0.00003 for each of up to five orders: a teacher that guesses passes three deviations too
# often.
_SURE = 4.0
# Far better: this share of all records more.
_GAIN = 0.05
_SHOWN = 12

_SORTS: dict[str, Callable[[str], Any]] = {
    "natural order": natural_key,
    "order of their bytes": lambda name: name.encode(errors="surrogateescape"),
    "order without letter case": str.lower,
}
_SHIFTS = {"class numbers one higher": 1, "class numbers one lower": -1}


def other_orders(names: Sequence[str] | None, classes: int) -> dict[str, NDArray[np.int32]]:
    """Class id by class id of plausible other numberings of C classes, by what they are called.

    ``names`` in the order of the ids as they are, where that order is all that matched them; None where
    names did. Numberings that are the present one, or one another, are left out.
    """
    found: dict[str, NDArray[np.int32]] = {}
    present = np.arange(classes, dtype=np.int32)
    for told, key in _SORTS.items() if names else ():
        keys = [key(name) for name in names or ()]
        order = sorted(range(classes), key=keys.__getitem__)
        places = np.empty(classes, np.int32)
        places[order] = present
        found[told] = places
    found |= {told: (present + shift) % classes for told, shift in _SHIFTS.items()}
    return _distinct(found, present)


def _distinct(
    found: dict[str, NDArray[np.int32]], present: NDArray[np.int32]
) -> dict[str, NDArray[np.int32]]:
    seen, kept = [present], {}
    for told, order in found.items():
        if not any(np.array_equal(order, other) for other in seen):
            kept[told] = order
            seen.append(order)
    return kept


@dataclass(frozen=True)
class BetterOrder:
    """A numbering of the classes under which the teacher is right far more often."""

    told: str
    """What it is called."""
    first: tuple[str, ...]
    """The first class names in it; none where nobody named them."""
    top1: float
    """Share of the records on which the teacher is right as the labels are."""
    better: float
    """That share by the other numbering."""
    records: int

    def warning(self, data: str, doing: str = "build", who: str = "teacher") -> str:
        """A line for people, with the remedy.

        ``data``: the data set's spec, ``doing``: what to do again, ``who``: whose order the classes have not.
        """
        shown = f" ({', '.join(self.first)}, ...)" if self.first else ""
        value, more = ("natural", ", or ?classes=FILE") if self.told == "natural order" else ("FILE", "")
        return (
            f"WARNING: the classes are probably not in the {who}'s order: as they are numbered it is right "
            f"on {self.top1:.1%} of {self.records:,} views, by {self.told}{shown} on {self.better:.1%}. If "
            f"that is its order, {doing} again with --data {quote(with_classes(data, value))}{more} (one "
            f"class name a line, in the {who}'s order)"
        )


class OrderTally:
    """Counts on how many records the teacher is right under each numbering of the classes."""

    def __init__(self, names: Sequence[str] | None, classes: int, views: int) -> None:
        self._names, self._views = names, views
        self._orders = other_orders(names, classes)
        self._gained = dict.fromkeys(self._orders, 0)
        self._lost = dict.fromkeys(self._orders, 0)
        self._records = self._right = 0

    def add(self, labels: NDArray[np.integer], best: NDArray[np.integer]) -> None:
        """Labels [n], all known, and the class of each record's largest logit [n]."""
        right = best == labels
        self._records += len(labels)
        self._right += int(right.sum())
        for told, order in self._orders.items():
            other = best == order[labels]
            self._gained[told] += int((other & ~right).sum())
            self._lost[told] += int((right & ~other).sum())

    @classmethod
    def merged(cls, several: Sequence[OrderTally]) -> OrderTally | None:
        """The counts of several processes together, all of one data set; None where there are none."""
        if not several:
            return None
        first = several[0]
        found = cls(first._names, 0, first._views)
        found._orders = first._orders
        found._gained, found._lost = dict.fromkeys(first._orders, 0), dict.fromkeys(first._orders, 0)
        for one in several:
            found._records += one._records
            found._right += one._right
            for told in first._orders:
                found._gained[told] += one._gained[told]
                found._lost[told] += one._lost[told]
        return found

    def better(self) -> BetterOrder | None:
        """The best other order, where it is far better.

        A sign test (McNemar) on the records that are right under one order only: their difference is more
        than four standard deviations of what chance gives. All views of a sample count as one observation,
        so the deviation is that of V times fewer records. It must also be a twentieth of all records.
        """
        told = max(self._orders, key=self._difference, default=None)
        if told is None or not self._is_sure(told):
            return None
        by_order = np.argsort(self._orders[told])
        names = [self._names[place] for place in by_order[:_SHOWN]] if self._names else []
        right = self._right + self._difference(told)
        shares = self._right / self._records, right / self._records
        return BetterOrder(told, () if told in _SHIFTS else tuple(names), *shares, self._records)

    def _difference(self, told: str) -> int:
        return self._gained[told] - self._lost[told]

    def _is_sure(self, told: str) -> bool:
        deviation = math.sqrt((self._gained[told] + self._lost[told]) * self._views)
        return self._difference(told) > max(_SURE * deviation, _GAIN * self._records)
