"""A whole cache from logits that somebody has already, batch by batch; samples may have several positions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_builder.format.codecs import Ranked
from cache_builder.format.creation import create, header_digests
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.layout import Blocks, Tile, tiles
from cache_builder.format.manifest import Manifest, RaggedPositions
from cache_builder.format.positions import COUNTS, STARTS, Positions, ragged_starts
from cache_builder.format.writer import NO_RESULTS, CacheWriter, SampleTable, header_arrays

# Numbers at the end of their type in each record, beyond which somebody should know.
_OFTEN = 0.02


@dataclass
class _Block:
    """The records of a row block, as far as they have come."""

    rows: range
    size: int
    """Positions of the rows."""
    records: NDArray[np.uint8]
    """[V, positions of the block, record_bytes]; zeros where none has come, or none belongs to a row."""
    is_unread: NDArray[np.bool_]
    """By position, whether its sample could not be read."""
    filled: int = 0

    def take(self, records: NDArray[np.uint8], is_unread: NDArray[np.bool_]) -> int:
        """Take what there is room for of records [V, n, record_bytes]; gives how many of the n."""
        count = min(self.size - self.filled, len(is_unread))
        place = slice(self.filled, self.filled + count)
        self.records[:, place], self.is_unread[place] = records[:, :count], is_unread[:count]
        self.filled += count
        return count

    def invalidate(self, counts: NDArray[np.int64], invalid: NDArray[np.uint8]) -> list[int]:
        """Give all records of rows that could not be read the bytes ``invalid``; gives those rows."""
        owners = np.repeat(np.array(self.rows, np.int64), counts)
        rows: list[int] = np.unique(owners[self.is_unread[: self.size]]).tolist()
        self.records[:, np.flatnonzero(np.isin(owners, rows))] = invalid
        return rows


class LogitsWriter:
    """Writes a new cache from logits in the order of the rows; what is held is a row block of records.

    with LogitsWriter("tokens.zarr", manifest, codec, table, digests, counts=lengths) as writer:
        for logits in batches:  # float32 [V, n, C]: the next n positions in every view
            writer.add(logits)
    print(writer.manifest.cache_id)

    A batch may end anywhere, also within a sample. A sample of which any logit is NaN is one that could not
    be read: all of its records become invalid. -infinity masks a class, and so does a logit of -5000 or less
    beside ordinary ones: it decodes to a number far below all others (not below -1e4). That takes a codec
    that was fitted to logits with masks, or ``all-logits``; others refuse it.

    Leaving the ``with`` block seals the cache; where an exception ends it, what was written stays without a
    cache_id, and readers refuse it.
    """

    def __init__(
        self,
        location: str | Path,
        manifest: Manifest,
        codec: Ranked[Any],
        table: SampleTable,
        digests: NDArray[np.uint64],
        *,
        counts: ArrayLike | None = None,
        pixels: NDArray[np.uint8] | None = None,
    ) -> None:
        """Create the store. Raises :class:`ConfigError` for pieces that do not fit together.

        ``manifest``: everything but ``digests``, ``invalid_rows`` and ``cache_id``, which are filled in.
        ``codec``: bound to its arrays, with the manifest's settings. ``digests`` [N]: of each sample's source
        bytes. ``counts`` [N]: the positions of each row, where ``manifest.positions`` is ragged. ``pixels``:
        the pictures of the probe.
        """
        if codec.settings != manifest.codec:
            raise ConfigError("the codec's settings are not those of the manifest")
        if digests.shape != (manifest.data.samples,):
            raise ConfigError(f"expected {manifest.data.samples} digests, got {list(digests.shape)}")
        runs = _runs(manifest, counts)
        arrays = {**header_arrays(codec, table, pixels), **runs}
        given = manifest.model_copy(update={**NO_RESULTS, "digests": header_digests(arrays)})
        create(location, given, arrays)
        self._writer = CacheWriter(location, given)
        self._codec, self._digests = codec, digests
        self._positions = Positions.read(given, runs.__getitem__)
        self._rows, self._blocks = Blocks.of(given), Blocks.of_positions(given)
        self._tiles = list(tiles(given))  # those of a block, one for each view group, are len(blocks) apart
        self._next = 0
        self._block = self._next_block()
        self._write_full_blocks()

    @property
    def manifest(self) -> Manifest:
        """The manifest; with its ``cache_id`` once the cache is sealed."""
        return self._writer.manifest

    def add(self, logits: NDArray[np.float32]) -> None:
        """Take the next n positions: logits float32 [V, n, C].

        Raises :class:`DataError` for logits of another shape, for more than the rows have, for +infinity, for
        masks that the codec has no place for and for a position that masks every class. Warns of numbers that
        the codec cut off: it was fitted to smaller logits, and records of the same sample may suffer with
        them.
        """
        records, is_unread = self._encoded(logits)
        self._warn_of_saturated(records)
        while len(is_unread):
            taken = self._block.take(records, is_unread)
            if not taken:
                raise DataError(f"{len(is_unread)} position(s) more than the rows of the cache have")
            records, is_unread = records[:, taken:], is_unread[taken:]
            self._write_full_blocks()

    def finish(self) -> Manifest:
        """Seal the cache; :class:`DataError` where positions are still missing."""
        block = self._block
        if len(block.rows):
            raise DataError(
                f"logits end within rows {block.rows.start}-{block.rows.stop - 1}: "
                f"{block.size - block.filled} of their {block.size} positions are missing"
            )
        return self._writer.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()

    def _encoded(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Packed records [V, n, record_bytes], and which of the n positions could not be read."""
        manifest = self._writer.manifest
        views, classes = manifest.views.count, manifest.classes
        if logits.ndim != 3 or (logits.shape[0], logits.shape[2]) != (views, classes):
            raise DataError(f"expected logits [{views}, n, {classes}], got {list(logits.shape)}")
        is_unread = np.asarray(np.isnan(logits).any(axis=(0, 2)))
        known = np.where(is_unread[:, None], np.float32(0), logits).astype(np.float32, copy=False)
        self._check_masks(known.reshape(-1, classes))
        return self._codec.packed_views(known, manifest.tiling.views), is_unread

    def _check_masks(self, logits: NDArray[np.float32]) -> None:
        """Raise :class:`DataError` for masks among logits [n, C] that no record of this codec can say."""
        refused = int(np.isneginf(logits).all(axis=1).sum())
        if refused:
            raise DataError(f"{refused} of {len(logits)} answers mask every class: one must be left")
        refused = int(self._codec.without_place(logits).sum())
        if refused:
            raise DataError(
                f"{refused} of {len(logits)} answers mask classes (logits of -infinity, or of -5000 or less "
                f"beside ordinary ones), and codec {self._codec.settings.name} was fitted to logits without "
                "masks: fit it to some that have them, or use codec all-logits"
            )

    def _warn_of_saturated(self, records: NDArray[np.uint8]) -> None:
        flat = records.reshape(-1, records.shape[2])
        cut = self._codec.saturated(self._codec.unpack(flat)) if len(flat) else 0
        if cut > _OFTEN * len(flat):
            warnings.warn(
                f"{cut:,} numbers of {len(flat):,} records reach the end of what the codec holds and may be "
                "cut off: fit it to logits like these",
                stacklevel=3,
            )

    def _next_block(self) -> _Block:
        """The block that comes next, without a record; one without rows, where there is none left."""
        rows, held = self._rows.rows(self._next), len(self._blocks.rows(self._next))
        shape = (self.manifest.views.count, held, self._codec.layout.record_bytes)
        self._next += 1
        return _Block(rows, self._positions.total(rows), np.zeros(shape, np.uint8), np.zeros(held, np.bool_))

    def _write_full_blocks(self) -> None:
        """Write the block that is full, and those after it whose rows have no position."""
        while len(self._block.rows) and self._block.filled == self._block.size:
            self._write(self._block, self._tiles[self._next - 1 :: len(self._blocks)])
            self._block = self._next_block()

    def _write(self, block: _Block, of_block: list[Tile]) -> None:
        rows = block.rows
        invalid = block.invalidate(self._positions.counts(rows), self._codec.pack(self._codec.invalid(1)))
        digests = np.where(np.isin(rows, invalid), np.uint64(0), self._digests[rows.start : rows.stop])
        for tile in of_block:
            records = block.records[tile.view_start : tile.view_stop]
            self._writer.write_records(tile, records, digests, invalid)


def _runs(manifest: Manifest, counts: ArrayLike | None) -> dict[str, NDArray[np.int64]]:
    """The arrays that say which positions the rows own, where they have different numbers of them."""
    match manifest.positions:
        case RaggedPositions(block=block):
            column = np.array(counts if counts is not None else [], np.int64)
            if column.shape != (manifest.data.samples,) or (column.size and column.min() < 0):
                raise ConfigError(
                    f"ragged positions need counts of 0 or more for each of the {manifest.data.samples} rows"
                )
            return {STARTS: ragged_starts(column, manifest.tiling.rows, block), COUNTS: column}
        case positions:
            if counts is not None:
                raise ConfigError(
                    f"counts are for ragged positions, those of the manifest are {positions.kind!r}"
                )
            return {}
