"""Arrays with an entry for every row that nobody has to hold: made, digested and written block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

_BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class ByBlock:
    """An array of one axis whose values come block by block, as often as somebody wants them."""

    size: int
    dtype: np.dtype[Any]
    make: Callable[[], Iterable[NDArray[Any]]]
    """Gives the values: consecutive arrays of one axis, of any lengths."""

    @property
    def shape(self) -> tuple[int]:
        """As of an array."""
        return (self.size,)

    @cached_property
    def digest(self) -> str:
        """See :func:`digest_of`."""
        return _digest(self.make())


HeaderArray = NDArray[Any] | ByBlock
"""An array of a store that is written once, before the first tile."""


def blocks_of(array: HeaderArray) -> Iterator[NDArray[Any]]:
    """The values in C order, as consecutive arrays: those of a long array are parts of it."""
    if isinstance(array, ByBlock):
        yield from array.make()
        return
    rows = max(1, _BLOCK_BYTES // max(1, array.dtype.itemsize * math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def digest_of(array: HeaderArray) -> str:
    """xxh64 (hex) of an array's little-endian C-order bytes."""
    return array.digest if isinstance(array, ByBlock) else _digest(blocks_of(array))


def _digest(blocks: Iterable[NDArray[Any]]) -> str:
    digest = xxhash.xxh64()
    for block in blocks:
        little = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def regrouped(array: HeaderArray, rows: int) -> Iterator[NDArray[Any]]:
    """Consecutive arrays of ``rows`` entries of the first axis; the last one may have fewer."""
    if not isinstance(array, ByBlock):
        yield from (array[start : start + rows] for start in range(0, len(array), rows))
        return
    left = array.size
    group, filled = np.empty(min(rows, left), array.dtype), 0
    for block in array.make():
        while len(block):
            taken = block[: len(group) - filled]
            group[filled : filled + len(taken)] = taken
            filled, block = filled + len(taken), block[len(taken) :]
            if filled == len(group):
                yield group
                left -= filled
                group, filled = np.empty(min(rows, left), array.dtype), 0
