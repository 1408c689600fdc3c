"""Are the statistics of the commits those of their records: counted anew from records and labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.commits import REPAIR, Commit, has_damaged_statistics
from cache_builder.format.errors import ConfigError
from cache_builder.format.layout import Tile
from cache_builder.format.reader import Cache
from cache_builder.verify.report import Check, Outcome, named, ok
from cache_builder.views import Recipe, recipe_from

_NAMED = 3
# The sums are of live logits: where two classes are as good as equal, the record may have them the other way.
_TOP1_SHARE = 0.02


class StatisticsRecount:
    """Counts what the records of each tile amount to, beside the decoding of them."""

    def __init__(self, cache: Cache, commits: Mapping[str, Commit], raw: Mapping[str, bytes]) -> None:
        self._cache = cache
        self._recipe = _recipe(cache)
        self._commits = commits
        self._stated = sum(commit.statistics is not None for commit in commits.values())
        self._problems = [
            f"{key}: its statistics are unreadable or fail their checksum"
            for key, commit in commits.items()
            if has_damaged_statistics(raw[key], commit)
        ]
        self._records = self._labelled = self._top1 = 0

    @property
    def is_needed(self) -> bool:
        """Whether any commit has statistics, whatever they say."""
        return bool(self._stated or self._problems)

    def add(
        self, view: int, rows: NDArray[np.int64], logits: NDArray[np.floating], valid: NDArray[np.bool_]
    ) -> None:
        """Records of a tile, decoded [n, C], of ``rows`` [n]; ``valid`` [n]: those that say something."""
        self._records += int(valid.sum())
        if not self._stated or self._recipe is None or self._recipe.mixes(view):
            return
        first = int(rows[0])  # they ascend
        labels = self._cache.labels_of(range(first, int(rows[-1]) + 1))[rows - first]
        counted = valid & (labels >= 0)
        self._labelled += int(counted.sum())
        self._top1 += int((logits[counted].argmax(axis=1) == labels[counted]).sum())

    def finish(self, tile: Tile) -> None:
        """Compare a tile whose records were all added."""
        stated = self._commits[tile.key].statistics
        if stated is not None:
            counted = [("records", self._records, stated.records, 0.0)]
            if self._recipe is not None:
                counted += [
                    ("labelled records", self._labelled, stated.labelled, 0.0),
                    ("right answers", self._top1, stated.top1, 1 + _TOP1_SHARE * self._labelled),
                ]
            wrong = [
                f"{found:,} {what} where the statistics say {said:,}"
                for what, found, said, slack in counted
                if abs(found - said) > slack
            ]
            if wrong:
                self._problems.append(f"{tile.key} ({tile}): {', '.join(wrong)}")
        self._records = self._labelled = self._top1 = 0

    def check(self) -> Check:
        """What came out."""
        if self._problems:
            said = f"{len(self._problems)} tile(s): {named(self._problems, _NAMED)}; {REPAIR}"
            return Check("statistics", Outcome.DAMAGED, said)
        return ok("statistics", f"those of {self._stated} tiles agree with records and labels")


def _recipe(cache: Cache) -> Recipe | None:
    """The recipe, which says in which views labels count; None for one that is not to be had here."""
    try:
        return recipe_from(cache.manifest.views.recipe)
    except ConfigError:
        return None
