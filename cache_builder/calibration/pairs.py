"""Which (view, row) pairs calibration looks at."""

from __future__ import annotations

import math

import numpy as np

from cache_builder.views.philox import uniforms

MAX_PAIRS, MIN_PAIRS = 16384, 512
# A class needs some pairs for its centre to be worth having: 8 of them save 1.5 bytes of 33 against 4.
_PAIRS_PER_CLASS = 8
# Calibration may cost a fiftieth of the build's own forward passes.
_SHARE_OF_BUILD = 50
_CALIBRATION_STREAM = 1


def pair_count(samples: int, views: int, classes: int) -> int:
    """Number of calibration pairs."""
    total = samples * views
    wanted = min(_PAIRS_PER_CLASS * classes, total // _SHARE_OF_BUILD, MAX_PAIRS)
    return min(total, max(MIN_PAIRS, wanted))


def calibration_pairs(samples: int, views: int, classes: int, seed: int) -> list[tuple[int, int]]:
    """(view, row) pairs: one drawn from each of as many equal strata, so all differ."""
    total = samples * views
    count = pair_count(samples, views, classes)
    offsets = uniforms(seed, 0, np.arange(count), 1, _CALIBRATION_STREAM)[:, 0]
    bounds = [total * index // count for index in range(count + 1)]
    flat = [low + int(u * (high - low)) for low, high, u in zip(bounds, bounds[1:], offsets, strict=False)]
    return [(index % views, index // views) for index in flat]


# Of a joint sketch: so much of the build's own forward passes, of a small build more.
_SHARE_OF_JOINT, _LEAST_JOINT = 8, 4096
_MOST_BYTES = 2**29


def most_joint_pairs(classes: int) -> int:
    """Pairs that fit into memory, and are enough."""
    return min(MAX_PAIRS, _MOST_BYTES // (4 * classes))


def group_rows(samples: int, views: int, classes: int, seed: int) -> list[int]:
    """Rows whose ``views`` first views calibration looks at.

    All of a small cache; else one drawn from each of as many equal strata.
    """
    most = most_joint_pairs(classes)
    if samples * views <= most:
        return list(range(samples))
    wanted = min(most, max(_LEAST_JOINT, samples * views // _SHARE_OF_JOINT))
    count = max(2, wanted // views)
    offsets = uniforms(seed, 0, np.arange(count), 1, _CALIBRATION_STREAM)[:, 0]
    bounds = [samples * index // count for index in range(count + 1)]
    return [low + int(u * (high - low)) for low, high, u in zip(bounds, bounds[1:], offsets, strict=False)]


def enough_pairs(classes: int) -> int:
    """Pairs that make a sketch reliable."""
    return max(MIN_PAIRS, min(classes, MAX_PAIRS))


def view_groups(samples: int, height: int, views: int, classes: int) -> list[range]:
    """Runs of ``height`` views that calibration looks at: the first, of few samples as many as are enough.

    They are spread over all ``views`` of the cache.
    """
    of_one = samples * height
    wanted = min(-(-enough_pairs(classes) // of_one), most_joint_pairs(classes) // of_one)
    there = views // height
    chosen = np.linspace(0, there - 1, min(max(1, wanted), there)).astype(int).tolist()
    return [range(group * height, (group + 1) * height) for group in chosen]


def further_groups(
    looked_at: list[tuple[int, range]], readable: int, samples: int, classes: int
) -> list[tuple[int, range]]:
    """Rows and views for a second look, where few rows of the first could be read; mostly none.

    ``readable``: how many of those looked at could. As many others are taken as make it enough pairs where as
    large a share of them can be read, spread over the rows of the cache that nobody looked at.
    """
    views = looked_at[0][1]
    missing = min(enough_pairs(classes), len(looked_at) * len(views)) - readable * len(views)
    if missing <= 0:
        return []
    others = np.setdiff1d(np.arange(samples), [row for row, _ in looked_at])
    wanted = missing * len(looked_at) / (len(views) * max(1, readable))
    places = np.linspace(0, len(others) - 1, min(len(others), math.ceil(wanted))).astype(int)
    return [(row, views) for row in others[places].tolist()]
