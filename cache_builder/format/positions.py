"""Which positions a sample owns, and which a tile holds (FORMAT.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

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
    """Raise :class:`ConfigError` for a cache of several positions a sample, where ``what`` knows only one."""
    if manifest.positions.kind != "one":
        raise several_positions(manifest, where, what)


def several_positions(manifest: Manifest, where: str, what: str) -> ConfigError:
    """The error of ``what`` that knows samples of one position alone, for a cache of several."""
    return ConfigError(
        f"{where} has several positions a sample (positions.kind is {manifest.positions.kind!r}), which "
        f"{what} does not know yet; read it with TeacherCache.open(path or URL).fetch_rows"
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


@dataclass(frozen=True)
class PositionSummary:
    """How many positions some rows have."""

    least: int
    """Of the row that has fewest."""
    most: int
    total: int

    def __str__(self) -> str:
        each = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        return f"{each} per sample, {self.total:,} in a view"


class Positions:
    """The positions of each row of a cache."""

    def __init__(self, manifest: Manifest, ragged: dict[str, NDArray[Any]] | None = None) -> None:
        """``ragged``: the arrays ``samples/position_start`` and ``position_count`` [N], where there are."""
        self._ragged = ragged
        self._per_row = block_positions(manifest) // manifest.tiling.rows
        self._block, self._rows = block_positions(manifest), manifest.tiling.rows

    @classmethod
    def read(cls, manifest: Manifest, array: Callable[[str], NDArray[Any]]) -> Self:
        """``array`` gives a header array of the cache by its path; it is asked only where there are such."""
        is_ragged = manifest.positions.kind == "ragged"
        return cls(manifest, {path: array(path) for path in (STARTS, COUNTS)} if is_ragged else None)

    @property
    def is_padded(self) -> bool:
        """Whether some positions belong to no row: those at the ends of blocks."""
        return self._ragged is not None

    def counts(self, rows: range | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """How many positions [n] each of some rows has."""
        if self._ragged is None:
            return np.full(len(rows), self._per_row, np.int64)
        index = slice(rows.start, rows.stop) if isinstance(rows, range) else rows
        return np.asarray(self._ragged[COUNTS][index], np.int64)

    def total(self, rows: range) -> int:
        """How many positions consecutive rows have together."""
        return len(rows) * self._per_row if self._ragged is None else int(self.counts(rows).sum())

    def summary(self, rows: range) -> PositionSummary:
        """How many positions some rows, one at least, have."""
        if self._ragged is None:
            return PositionSummary(self._per_row, self._per_row, self.total(rows))
        counts = self.counts(rows)
        return PositionSummary(int(counts.min()), int(counts.max()), int(counts.sum()))

    def problem(self) -> str | None:
        """What is wrong with where the runs begin, if anything is (FORMAT.md, section 6)."""
        if self._ragged is None:
            return None
        try:
            expected = ragged_starts(self._ragged[COUNTS], self._rows, self._block)
        except ConfigError as error:
            return str(error)
        wrong = np.flatnonzero(expected != self._ragged[STARTS])
        return (
            f"the positions of row {wrong[0]} do not begin where those before it end" if wrong.size else None
        )

    def of(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The positions of some rows of the cache: those of a row follow each other, rows in their order."""
        if self._ragged is None and self._per_row == 1:
            return rows.astype(np.int64, copy=False)
        counts = self.counts(rows)
        # Rows are unsigned on the wire, and too narrow to be multiplied.
        starts = rows.astype(np.int64) * self._per_row if self._ragged is None else self._ragged[STARTS][rows]
        before = np.cumsum(counts) - counts
        return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))

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
