"""Masked classes: logits of -1e4, -1e9 or -infinity, which say that a class is left out and nothing more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.contract import Calibration
from cache_builder.format.codecs.masking import LOWEST, MaskSection, is_masked
from cache_builder.format.codecs.sketched import Sketched
from cache_builder.format.errors import DataError

MARGIN = 16.0
"""How far below all other logits those lie that only some views mask.

At T = 4 the class keeps e**-4 of the least of them; less room costs truth there, more costs steps at T = 1
(``benchmarks/masks.py``).
"""


@dataclass(frozen=True)
class Masks:
    """What calibration logits [pairs, C] say about the teacher's masked classes."""

    throughout: NDArray[np.bool_]
    """[C], classes that every pair masks."""
    values: NDArray[np.float32]
    """[C], what masked classes decode to."""
    floor: float
    """Logits that only some pairs mask are raised to this: ``MARGIN`` below all that are not masked."""
    found: bool
    """Whether any logit is masked."""

    @classmethod
    def of(cls, logits: NDArray[np.float32]) -> Masks:
        """Look at calibration logits; :class:`DataError` where fewer than two classes are left."""
        masked = is_masked(logits)
        throughout: NDArray[np.bool_] = np.asarray(masked.all(axis=0))
        if (~throughout).sum() < 2:
            raise DataError(
                f"the teacher masks {int(throughout.sum())} of {logits.shape[1]} classes in every view "
                "(logits of -5000 or less beside ordinary ones); at least two must be left"
            )
        found = bool(masked.any())
        floor = float(logits.min(where=~masked, initial=np.inf) - MARGIN) if found else LOWEST
        values = np.maximum(logits.max(axis=0), np.float32(LOWEST))
        return cls(throughout, values, floor, found)

    @property
    def left_count(self) -> int:
        """C', classes that not every pair masks."""
        return int((~self.throughout).sum())

    @property
    def section(self) -> MaskSection | None:
        """As the manifest states it; None where nothing is masked."""
        if not self.found:
            return None
        return MaskSection(classes=int(self.throughout.sum()), lowest=LOWEST, floor=self.floor)

    def left(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [pairs, C'] of the classes that are not masked throughout, at or above the floor."""
        if not self.found:
            return logits  # not a copy: these may be all the memory there is
        kept = logits[:, ~self.throughout]
        return np.where(is_masked(kept), np.float32(self.floor), kept)

    def widened(self, found: Calibration, **changes: object) -> Calibration:
        """What was fitted to C' classes as one of C: masked classes are their constant and cost nothing.

        ``changes``: further settings of the codec that depend on the number of classes.
        """
        codec = cast("Sketched[Any]", found.codec)
        wide = codec.widened(~self.throughout, self.values, {"masks": self.section, **changes})
        return replace(found, codec=wide, told=(*self.told(), *found.told))

    def told(self) -> list[str]:
        """A sentence for people; none where nothing is masked."""
        if not self.found:
            return []
        count, classes = int(self.throughout.sum()), len(self.throughout)
        return [
            f"masked classes: {count} of {classes} in every view; they cost nothing and decode to "
            f"their constant, not below {LOWEST:g}; what only some views mask is kept as {self.floor:.4g}"
        ]
