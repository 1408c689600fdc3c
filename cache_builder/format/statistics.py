"""What the teacher did on the views of a tile, as sums that add up over tiles, and the figures they give.

The sums are taken from the live logits while a cache is built and stored with each tile's commit, so that a
build that was killed and continued gives the figures of one that nobody touched. They say nothing a record
needs: a cache without them, or with damaged ones, reads as any other.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cache_builder.format.exact_sums import ExactSums
from cache_builder.format.frozen import Frozen
from cache_builder.format.kept import KeptSums, KeptTotal, RecordKept
from cache_builder.format.manifest import canonical_json

CONFIDENCE_BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al., ICML 2017."""
ENTROPY_BINS = 20
"""Equal-width bins of the entropy, from 0 to log C nats."""

_PerConfidence = Field(min_length=CONFIDENCE_BINS, max_length=CONFIDENCE_BINS)


class StatisticSums(Frozen):
    """Sums over records; those of several tiles are added entry by entry. Invalid records are left out."""

    records: NonNegativeInt
    """Records counted."""
    labelled: NonNegativeInt
    """Of these, records whose sample has a label."""
    top1: NonNegativeInt
    """Labelled records whose largest logit is the label's; of equal logits the lower class id comes first."""
    top5: NonNegativeInt
    """Labelled records whose label is among the five largest logits."""
    nll: NonNegativeFloat
    """Negative log-likelihood of the label, in nats, summed over the labelled records."""
    entropy: NonNegativeFloat
    """Entropy of softmax(logits), in nats, summed over all records."""
    bin_records: Annotated[tuple[NonNegativeInt, ...], _PerConfidence]
    """Labelled records by confidence (largest probability): bin m of 15 holds ((m - 1) / 15, m / 15]."""
    bin_top1: Annotated[tuple[NonNegativeInt, ...], _PerConfidence]
    """Of these, records whose largest logit is the label's."""
    bin_confidence: Annotated[tuple[NonNegativeFloat, ...], _PerConfidence]
    """Confidence summed over the records of each bin."""
    entropy_records: Annotated[
        tuple[NonNegativeInt, ...], Field(min_length=ENTROPY_BINS, max_length=ENTROPY_BINS)
    ]
    """All records by entropy: bin m of 20 holds [(m - 1) / 20, m / 20) of log C, the last one its end too."""
    kept: KeptSums | None = None
    """What some of the records keep. The JSON has this key only where records were looked at."""

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = serialize(self)
        return {key: value for key, value in body.items() if key != "kept" or value is not None}


class TileStatistics(StatisticSums):
    """The sums of one tile as its commit stores them."""

    crc32: int = Field(ge=0, lt=2**32)
    """CRC-32 (the zlib one) of the canonical JSON of the other keys."""

    @classmethod
    def sealed(cls, sums: StatisticSums) -> Self:
        """``sums`` with their checksum."""
        body = sums.model_dump(mode="json")
        return cls(**body, crc32=_checksum(body))

    @model_validator(mode="after")
    def _intact(self) -> Self:
        if _checksum(self.model_dump(mode="json", exclude={"crc32"})) != self.crc32:
            raise ValueError("the statistics do not match their checksum")
        return self


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(canonical_json(body))


# Of fewer labelled records a poor teacher may get none right.
_ENOUGH_TO_TELL = 100


@dataclass(frozen=True)
class TeacherStatistics:
    """How good, how sure and how well calibrated the teacher was on the recorded views: its live logits."""

    records: int
    """Records measured: those that are valid, of the tiles that have statistics."""
    labelled: int
    """Of these, records with a label."""
    top1: float | None
    """Share of labelled records whose largest logit is the label's; None without labels, as the next 3."""
    top5: float | None
    """Share of labelled records whose label is among the five largest logits."""
    nll: float | None
    """Mean negative log-likelihood of the label, in nats."""
    ece: float | None
    """Expected calibration error over 15 equal-width bins of confidence (Guo et al., ICML 2017, eq. 3)."""
    entropy: float
    """Mean entropy of softmax(logits), in nats."""
    entropy_limit: float
    """log C, the entropy of a teacher that knows nothing: the right end of the histogram."""
    entropy_histogram: tuple[int, ...]
    """Records in 20 equal-width bins of entropy from 0 to ``entropy_limit``."""
    kept: RecordKept | None = None
    """What the records keep of these logits; None where every logit is stored, or the build did not look."""

    @property
    def is_guessing(self) -> bool:
        """Right no more often than chance explains: within three standard deviations of 1 / C."""
        if self.top1 is None or self.labelled < _ENOUGH_TO_TELL:
            return False
        chance = math.exp(-self.entropy_limit)
        return self.top1 <= chance + 3 * math.sqrt(chance * (1 - chance) / self.labelled)


def figures(tiles: Iterable[StatisticSums], classes: int) -> TeacherStatistics | None:
    """What the sums of some tiles of a teacher of ``classes`` logits amount to; None for no record."""
    total, kept = ExactSums(), KeptTotal()
    for tile in tiles:
        total.add([tile.records, tile.labelled, tile.top1, tile.top5, tile.nll, tile.entropy])
        total.add([*tile.bin_top1, *tile.bin_confidence, *tile.entropy_records], first=_SINGLE)
        kept.add(tile.kept)
    if not total.value(0):
        return None
    records, labelled, *single = (total.value(place) for place in range(_SINGLE))
    top1, top5, nll = (value / labelled if labelled else None for value in single[:3])
    hits, confidence = (
        [total.value(_SINGLE + CONFIDENCE_BINS * part + place) for place in range(CONFIDENCE_BINS)]
        for part in range(2)
    )
    first = _SINGLE + 2 * CONFIDENCE_BINS
    return TeacherStatistics(
        records=int(records),
        labelled=int(labelled),
        top1=top1,
        top5=top5,
        nll=nll,
        ece=_calibration_error(hits, confidence) / labelled if labelled else None,
        entropy=single[3] / records,
        entropy_limit=math.log(classes),
        entropy_histogram=tuple(int(total.value(first + place)) for place in range(ENTROPY_BINS)),
        kept=kept.figures(),
    )


_SINGLE = 6
"""Sums that have one number, before those of the bins."""


def _calibration_error(hits: list[float], confidence: list[float]) -> float:
    """Sum over the bins of |hits - summed confidence|: the expected calibration error times the records."""
    return math.fsum(abs(right - sure) for right, sure in zip(hits, confidence, strict=True))
