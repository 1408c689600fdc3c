"""The numbers of the plots: bytes against what is lost, accuracy, calibration, entropy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel

from cache_builder.console.fidelity import at_temperature_1, at_temperature_4, frontier
from cache_builder.format.manifest import CalibrationSection
from cache_builder.format.statistics import CONFIDENCE_BINS, ENTROPY_BINS, StatisticSums, figures
from logit_server.served_caches import ServedCache


class Rate(BaseModel):
    """One setting of the codec, as calibration measured it."""

    bytes_per_view: float
    lost: float | None
    """Share of the logits' variance."""
    kd_1: float
    """1 - gradient cosine of kd at T = 1."""
    kd_4: float
    """1 - gradient cosine of kd at T = 4."""
    worst: float
    """1 - gradient cosine of the worst of a few losses."""
    on_frontier: bool
    """Whether no smaller record is as faithful."""
    chosen: bool
    """Whether the cache uses it."""


class Accuracy(BaseModel):
    """How often the teacher was right in the views of a tile."""

    first_view: int
    last_view: int
    top1: float
    top5: float


class Confidence(BaseModel):
    """A bin of the calibration: records whose largest probability lies in (low, high]."""

    low: float
    high: float
    records: int
    top1: float | None
    """Share of them that is right; null where the bin is empty."""
    mean: float | None
    """Their mean confidence."""


class Entropy(BaseModel):
    """A bin of the entropy, in nats."""

    low: float
    high: float
    records: int


class Figures(BaseModel):
    """Everything that is drawn of a cache; a list is empty where nothing was measured."""

    rates: list[Rate]
    accuracies: list[Accuracy]
    confidences: list[Confidence]
    entropies: list[Entropy]


def measured(served: ServedCache) -> Figures:
    """The figures of a cache, from its manifest and its commits; no record is read."""
    by_views: dict[int, list[StatisticSums]] = defaultdict(list)
    for tile in served.cache.tiles:
        sums = served.cache.commits[tile.key].statistics
        if sums is not None:
            by_views[tile.views.start].append(sums)
    every = [sums for group in by_views.values() for sums in group]
    return Figures(
        rates=_rates(served.manifest.calibration),
        accuracies=_accuracies(served, by_views),
        confidences=_confidences(every),
        entropies=_entropies(served, every),
    )


def _rates(section: CalibrationSection) -> list[Rate]:
    edge = set(frontier(section)) if section.table else set()
    found = [
        Rate(
            bytes_per_view=point.bytes_per_view,
            lost=point.lost,
            kd_1=1 - at_temperature_1(point),
            kd_4=1 - at_temperature_4(point),
            worst=1 - point.gradient_cosine,
            on_frontier=index in edge,
            chosen=index == section.chosen,
        )
        for index, point in enumerate(section.table)
    ]
    return sorted(found, key=lambda rate: rate.bytes_per_view)


def _accuracies(served: ServedCache, by_views: dict[int, list[StatisticSums]]) -> list[Accuracy]:
    found = []
    for first, sums in sorted(by_views.items()):
        known = figures(sums, served.manifest.classes)
        if known is not None and known.top1 is not None and known.top5 is not None:
            last = min(first + served.manifest.tiling.views, served.views) - 1
            found.append(Accuracy(first_view=first, last_view=last, top1=known.top1, top5=known.top5))
    return found


def _confidences(tiles: Sequence[StatisticSums]) -> list[Confidence]:
    if not any(tile.labelled for tile in tiles):
        return []
    found = []
    for index in range(CONFIDENCE_BINS):
        records = sum(tile.bin_records[index] for tile in tiles)
        right = sum(tile.bin_top1[index] for tile in tiles)
        sure = sum(tile.bin_confidence[index] for tile in tiles)
        found.append(
            Confidence(
                low=index / CONFIDENCE_BINS,
                high=(index + 1) / CONFIDENCE_BINS,
                records=records,
                top1=right / records if records else None,
                mean=sure / records if records else None,
            )
        )
    return found


def _entropies(served: ServedCache, tiles: Sequence[StatisticSums]) -> list[Entropy]:
    known = figures(tiles, served.manifest.classes)
    if known is None:
        return []
    width = known.entropy_limit / ENTROPY_BINS
    return [
        Entropy(low=index * width, high=(index + 1) * width, records=records)
        for index, records in enumerate(known.entropy_histogram)
    ]
