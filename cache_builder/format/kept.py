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


def kept_figures(tiles: Iterable[KeptSums | None]) -> RecordKept | None:
    """What the sums of some tiles amount to; None where no record was decoded, or nothing varied."""
    every = [tile for tile in tiles if tile is not None]
    records, variance = sum(tile.records for tile in every), math.fsum(tile.variance for tile in every)
    if not records or not variance:
        return None
    at_1, at_4 = (_cosine(every, index) for index in range(len(KD_TEMPERATURES)))
    return RecordKept(records, math.fsum(tile.error for tile in every) / variance, (at_1, at_4))


def _cosine(tiles: list[KeptSums], index: int) -> float:
    product, decoded, live = (
        math.fsum(getattr(tile, name)[index] for tile in tiles) for name in ("product", "decoded", "live")
    )
    lengths = math.sqrt(decoded) * math.sqrt(live)
    return product / lengths if lengths else 1.0
