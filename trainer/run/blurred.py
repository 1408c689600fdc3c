"""Losses that a cache is known to serve badly: said before hours are spent on them, with the way out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator

from cache_builder.console.fidelity import (
    BLURRED,
    at_temperature_1,
    at_temperature_4,
    chosen_point,
    of_worst_loss,
    way_out,
)
from cache_builder.format.manifest import Manifest
from trainer.losses import Loss
from trainer.teacher.client import TeacherCache

log = logging.getLogger(__name__)

_MEASURES = {
    "kd at T = 1": at_temperature_1,
    "kd at T = 4": at_temperature_4,
    "the worst of the losses that calibration tried": of_worst_loss,
}
_AT_1, _AT_4, _WORST = _MEASURES


def warn_of_blurred_teachers(losses: Iterable[Loss], caches: Iterable[TeacherCache]) -> None:
    """A warning for each cache whose records lost what one of the losses looks at."""
    taught = [loss for loss in losses if loss.needs_teacher]
    for cache in caches:
        for sentence in blurred(taught, cache.manifest):
            log.warning("%s", sentence)


def blurred(losses: Iterable[Loss], manifest: Manifest) -> Iterator[str]:
    """What to say of a cache: at most a sentence for each measure in which its records fall short."""
    point = chosen_point(manifest)
    if point is None or manifest.calibration.is_alike:
        return
    by_measure: dict[str, dict[str, None]] = defaultdict(dict)
    for loss in losses:
        by_measure[_WORST if point.kd_cosines is None else _nearest(loss)][loss.name] = None
    elsewhere = "take a loss at T = 1, such as kd(temperature=1), or "
    instead = elsewhere if point.kd_cosines is not None and at_temperature_1(point) >= BLURRED else ""
    for name, found in by_measure.items():
        measure = _MEASURES[name]
        if measure(point) < BLURRED:
            yield (
                f"WARNING: cache {manifest.name!r} serves {', '.join(found)} badly: {name} has gradient "
                f"cosine {measure(point):.4f}, where 1 is the live teacher and less than {BLURRED:g} is "
                f"blurred: {instead}{way_out(manifest, measure)} (kdcache build)"
            )


def _nearest(loss: Loss) -> str:
    """The measure that says most about a loss."""
    if loss.weighs == "tail":
        return _WORST
    return _AT_4 if loss.weighs == "all" or loss.highest_temperature > 1 else _AT_1
