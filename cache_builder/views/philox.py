"""Uniforms from a counter-based generator: the same in any process, order and batch size.

Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), NumPy's
implementation. Only its raw 64-bit words are used, so no library's way of sampling matters.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Stream(IntEnum):
    """What the numbers of one (seed, view, row) are for. Numbers of old streams may never change."""

    CROP = 0
    CALIBRATION = 1
    PROBE = 2
    OPERATIONS = 3
    """RandAugment and TrivialAugment."""
    JITTER = 4
    ERASE = 5
    MIX = 6
    """Counted by the smaller row of the pair, so that both partners draw the same."""
    PAIRING = 7
    """Keys of the permutation that makes the pairs of a view; row 0."""


def words(seed: int, view: int, rows: NDArray[np.int64], count: int, stream: int = 0) -> NDArray[np.uint64]:
    """Raw words [n, count], a function of (seed, view, row, stream) alone.

    Key = (seed, view); counter = (block, row, stream, 0) with blocks of four words counted from 1.
    ``stream`` keeps different uses of one (seed, view, row) apart.
    """
    generator = np.random.Philox(key=np.array([seed, view], np.uint64))
    state = generator.state
    drawn = np.empty((len(rows), count), np.uint64)
    for index, row in enumerate(rows):
        # Setting the state costs 2 µs a row; making a generator for each costs 13.
        state["state"]["counter"] = np.array([0, row, stream, 0], np.uint64)
        generator.state = state
        drawn[index] = generator.random_raw(count)
    return drawn


def uniforms(
    seed: int, view: int, rows: NDArray[np.int64], count: int, stream: int = 0
) -> NDArray[np.float64]:
    """Uniform numbers [n, count] in [0, 1): the top 53 bits of each of the ``words``."""
    return (words(seed, view, rows, count, stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53
