"""Which positions a sample owns, and which a tile holds (FORMAT.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import GridPositions, Manifest, RaggedPositions

STARTS, COUNTS = "samples/position_start", "samples/position_count"


def block_positions(manifest: Manifest) -> int:
    """Positions of a whole row block: the second axis of a shard of records."""
    match manifest.positions:
        case RaggedPositions(block=block):
            return block
        case GridPositions(shape=shape):
            return manifest.tiling.rows * math.prod(shape)
        case _:
            return manifest.tiling.rows


def position_count(manifest: Manifest) -> int:
    """P, positions of the whole cache, also those at the ends of blocks that belong to no sample."""
    match manifest.positions:
        case RaggedPositions(block=block):
            return block * -(-manifest.data.samples // manifest.tiling.rows)
        case GridPositions(shape=shape):
            return manifest.data.samples * math.prod(shape)
        case _:
            return manifest.data.samples


def require_one_position(manifest: Manifest, where: str, what: str) -> None:
    """Raise :class:`ConfigError` for a cache of several positions a sample; ``what`` cannot read it yet."""
    if manifest.positions.kind != "one":
        raise ConfigError(
            f"{where} has several positions a sample (positions.kind is {manifest.positions.kind!r}), which "
            f"{what} does not know yet; read it with open_cache(path).read_rows"
        )


def ragged_starts(counts: NDArray[np.int64], rows: int, block: int) -> NDArray[np.int64]:
    """Where the positions of each row [N] begin; ``rows``: rows in a tile, ``block``: positions of one.

    Raises :class:`ConfigError` where the positions of a tile's rows do not fit into its block.
    """
    starts = np.empty(len(counts), np.int64)
    for number, first in enumerate(range(0, len(counts), rows)):
        ends = np.cumsum(counts[first : first + rows])
        if ends[-1] > block:
            raise ConfigError(
                f"rows {first}-{first + len(ends) - 1} have {ends[-1]} positions, a block of this cache "
                f"holds {block}: give it larger blocks, or fewer rows in a tile"
            )
        starts[first : first + rows] = number * block + ends - counts[first : first + rows]
    return starts


class Positions:
    """The positions of each row of a cache."""

    def __init__(self, manifest: Manifest, ragged: dict[str, NDArray[Any]] | None = None) -> None:
        """``ragged``: the arrays ``samples/position_start`` and ``position_count`` [N], where there are."""
        self._ragged = ragged
        self._per_row = block_positions(manifest) // manifest.tiling.rows
        self._block, self._rows = block_positions(manifest), manifest.tiling.rows

    def counts(self, rows: range) -> NDArray[np.int64]:
        """Positions [n] of consecutive rows."""
        if self._ragged is None:
            return np.full(len(rows), self._per_row, np.int64)
        return np.asarray(self._ragged[COUNTS][rows.start : rows.stop], np.int64)

    def runs(self, rows: range) -> Iterator[range]:
        """The positions of consecutive rows as runs without a gap, in their order."""
        if self._ragged is None:
            yield range(rows.start * self._per_row, rows.stop * self._per_row)
            return
        starts, counts = self._ragged[STARTS], self._ragged[COUNTS]
        first = rows.start
        while first < rows.stop:
            last = min((first // self._rows + 1) * self._rows, rows.stop) - 1
            yield range(int(starts[first]), int(starts[last] + counts[last]))
            first = last + 1
