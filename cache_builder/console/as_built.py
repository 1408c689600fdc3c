"""What the records of a finished cache were found to keep, beside what calibration expected of them."""

from __future__ import annotations

import math

from cache_builder.console.fidelity import chosen_point, cosine_in_words, rounded_up, share_in_words
from cache_builder.format.kept import RecordKept
from cache_builder.format.manifest import Manifest
from cache_builder.format.statistics import TeacherStatistics

# By so much the records of all tiles may lose more than those of calibration, which are others.
_UNLIKE = 0.25


def as_built_facts(manifest: Manifest, statistics: TeacherStatistics | None) -> dict[str, str]:
    """A sentence, by its key; nothing where the build did not look, or there was nothing to lose."""
    kept = None if statistics is None else statistics.kept
    return {} if kept is None or manifest.calibration.is_alike else {"as built": kept_in_words(kept)}


def kept_in_words(kept: RecordKept) -> str:
    """Share lost, and gradient cosines."""
    at_1, at_4 = map(cosine_in_words, kept.kd_cosines)
    return (
        f"{share_in_words(kept.lost)} of the variance lost on {kept.records:,} records of all tiles, "
        f"gradient cosine {at_1} at T = 1 and {at_4} at T = 4"
    )


def as_built_warnings(manifest: Manifest, statistics: TeacherStatistics | None) -> list[str]:
    """What to say where the teacher says more on the pictures of the cache than on those of calibration."""
    point, kept = chosen_point(manifest), None if statistics is None else statistics.kept
    if kept is None or point is None or not point.lost or manifest.calibration.is_alike:
        return []
    allowed = max(point.lost, manifest.requested.codec.lose or 0.0)
    if kept.lost <= (1 + _UNLIKE) * allowed:
        return []
    if manifest.codec.name == "joint-sketch":
        way = f"--lose {rounded_up(point.lost * allowed / kept.lost):g}"
    else:
        way = f"a larger --bytes-per-view, such as {math.ceil(2 * point.bytes_per_view)}"
    return [
        f"WARNING: the records lose {share_in_words(kept.lost)} of the logits' variance where calibration "
        f"expected {share_in_words(point.lost)}: the teacher says more on these pictures than on those that "
        f"calibration looked at; build again with {way}"
    ]
