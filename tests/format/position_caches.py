"""A synthetic builder of caches whose samples have several positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import writer
from cache_builder.format.layout import output_arrays, tiles
from cache_builder.format.manifest import LOGITS, GridPositions, Manifest, RaggedPositions
from cache_builder.format.positions import COUNTS, STARTS, ragged_starts
from tests.caches import bound, fit_basis, synthetic_manifest, synthetic_names

GRID = GridPositions(shape=(2, 3))
COUNTS_OF_ROWS = (4, 0, 1, 3, 2)
"""Positions of the rows of a ragged cache; two rows are a tile."""
RAGGED = RaggedPositions(block=5)


def write_positions(
    path: Path, kind: GridPositions | RaggedPositions, logits: NDArray[np.float32], counts: tuple[int, ...]
) -> Manifest:
    """A cache of logits [V, positions of all rows, C]; ``counts`` of each row; a tile has two rows."""
    views, _, classes = logits.shape
    manifest = synthetic_manifest(
        views=views, rows=len(counts), classes=classes, top_k=3, rank=2, wide=1, tile_rows=2, name=kind.kind
    ).model_copy(update={"positions": kind})
    codec = bound(manifest.codec, fit_basis(logits.reshape(-1, classes), 2))
    ids = [f"{row}.txt" for row in range(len(counts))]
    table = writer.SampleTable.from_ids(ids, None, synthetic_names(manifest))
    arrays = writer.header_arrays(codec, table, np.zeros((1, 3, 8, 8), np.uint8))
    if isinstance(kind, RaggedPositions):
        column = np.array(counts, np.int64)
        arrays |= {STARTS: ragged_starts(column, manifest.tiling.rows, kind.block), COUNTS: column}
    manifest = manifest.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    out = writer.CacheWriter(path, manifest)
    ends = np.cumsum(counts)
    for tile in tiles(manifest):
        own = slice(ends[tile.row_start] - counts[tile.row_start], ends[tile.row_stop - 1])
        block = logits[tile.view_start : tile.view_stop, own]
        flat = codec.encode(block.reshape(-1, classes))
        _, covered = output_arrays(manifest, LOGITS)[0].selection(tile)
        unused = covered.stop - covered.start - block.shape[1]
        fields = {
            name: np.pad(
                column.reshape(*block.shape[:2], *column.shape[1:]),
                [(0, 0), (0, unused), *[(0, 0)] * (column.ndim - 1)],
            )
            for name, column in flat.items()
        }
        out.write_tile(tile, fields, np.array(tile.rows, np.uint64))
    return out.finish()
