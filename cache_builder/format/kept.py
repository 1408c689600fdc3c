"""What records keep of the logits they were made from, as sums over a tile and the figures they give.

Calibration measures a record on views that it looked at before the build; these sums are of records of every
tile, as they were written, so that views which came later (``kdcache extend``), and pictures unlike those of
calibration, are in the figures too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import NonNegativeFloat, NonNegativeInt

from cache_builder.format.exact_sums import ExactSums
from cache_builder.format.frozen import Frozen

KD_TEMPERATURES = (1.0, 4.0)
"""Temperatures at which gradients of kd are compared."""


class KeptSums(Frozen):
    """Sums over those records of a tile that were decoded again, without the classes that are masked."""

    records: NonNegativeInt
    """Records that were decoded."""
    error: NonNegativeFloat
    """Squares of decoded minus live logits."""
    variance: NonNegativeFloat
    """Squares of live logits minus the codec's mean of their class."""
    product: tuple[float, float]
    """Products of the gradients of kd from decoded and from live logits, at T = 1 and 4."""
    decoded: tuple[NonNegativeFloat, NonNegativeFloat]
    """Squares of those from decoded logits."""
    live: tuple[NonNegativeFloat, NonNegativeFloat]
    """Squares of those from live logits."""


@dataclass(frozen=True)
class RecordKept:
    """What the records of a cache keep, on some of each of its tiles."""

    records: int
    """Records that were decoded."""
    lost: float
    """Share of the variance of the logits around their class means."""
    kd_cosines: tuple[float, float]
    """Cosines between the gradients of kd from decoded and from live logits, at T = 1 and 4."""


class KeptTotal:
    """The sums of tiles added up, one tile at a time."""

    def __init__(self) -> None:
        self._sums = ExactSums()

    def add(self, tile: KeptSums | None) -> None:
        """Add those of a tile; None where nobody looked."""
        if tile is not None:
            single = [tile.records, tile.error, tile.variance]
            self._sums.add([*single, *tile.product, *tile.decoded, *tile.live])

    def figures(self) -> RecordKept | None:
        """What they amount to; None where no record was decoded, or nothing varied."""
        count = len(KD_TEMPERATURES)
        records, error, variance, *gradients = (self._sums.value(place) for place in range(3 + 3 * count))
        if not records or not variance:
            return None
        at_1, at_4 = (_cosine(*gradients[index::count]) for index in range(count))
        return RecordKept(int(records), error / variance, (at_1, at_4))


def kept_figures(tiles: Iterable[KeptSums | None]) -> RecordKept | None:
    """What the sums of some tiles amount to; None where no record was decoded, or nothing varied."""
    total = KeptTotal()
    for tile in tiles:
        total.add(tile)
    return total.figures()


def _cosine(product: float, decoded: float, live: float) -> float:
    lengths = math.sqrt(decoded) * math.sqrt(live)
    return product / lengths if lengths else 1.0
