"""Are two things about the same samples, row by row, and do their labels agree?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.by_block import digest_of
from cache_builder.format.manifest import Manifest
from cache_builder.format.reader import Cache
from cache_builder.format.writer import SampleTable

ID_ARRAYS = ("samples/id_bytes", "samples/id_offsets")
LABEL_ARRAY = "samples/label"


def differing_array(cache: Cache, table: SampleTable) -> str | None:
    """The path of the first array of ids or labels in which a cache differs from a table; None for none."""
    for path, wanted in table.arrays().items():
        cache.check_header(path)
        if cache.manifest.digests[path] != digest_of(wanted):
            return path
    return None


def same_ids(one: Manifest, other: Manifest) -> bool:
    """Whether two caches have the same sample ids in the same rows, by the digests of their arrays."""
    return all(one.digests[path] == other.digests[path] for path in ID_ARRAYS)


def same_labels(one: Manifest, other: Manifest) -> bool:
    """Whether two caches have the same label in every row."""
    return one.digests[LABEL_ARRAY] == other.digests[LABEL_ARRAY]


def contradictions(ours: NDArray[np.int32], theirs: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where two label columns [N] both have a label, and not the same one."""
    found: NDArray[np.bool_] = (ours != theirs) & (ours >= 0) & (theirs >= 0)
    return found


def first_difference(ours: Sequence[str], theirs: Sequence[str]) -> int | None:
    """The first place at which two sequences of ids or names differ, or at which one of them ends."""
    pairs = enumerate(zip_longest(ours, theirs))
    return next((place for place, (one, other) in pairs if one != other), None)
