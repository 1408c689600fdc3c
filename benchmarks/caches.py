"""A cache of ImageNet's size for measurements: synthetic logits that compress like a teacher's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cache_builder.format import Manifest, writer
from cache_builder.format.layout import tiles
from tests.caches import bound, fit_basis, synthetic_logits, synthetic_manifest, synthetic_names

IMAGENET_ROWS = 1_281_167
CLASSES = 1000
TILE_ROWS = 16_384


def write_large_cache(path: Path, rows: int = IMAGENET_ROWS, views: int = 1) -> Manifest:
    """Write a cache of ``rows`` records of 5 classes and a tail of rank 48: 77 bytes each.

    One chunk of low-rank logits is encoded and written again and again, each time with other rows first.
    """
    logits = synthetic_logits(1, TILE_ROWS, CLASSES)[0]
    basis = fit_basis(logits[:2048], 48)
    plain = synthetic_manifest(
        views=views, rows=rows, classes=CLASSES, top_k=5, rank=48, wide=4, tile_views=1, tile_rows=TILE_ROWS
    )
    encoder = bound(plain.codec, basis)
    ids = (f"n{row // 1300:08d}/image_{row:08d}.JPEG" for row in range(rows))
    table = writer.SampleTable.from_ids(ids, np.arange(rows) % CLASSES, synthetic_names(plain))
    arrays = writer.header_arrays(encoder, table, np.zeros((1, 3, 8, 8), np.uint8))
    manifest = plain.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    out = writer.CacheWriter(path, manifest)
    fields = encoder.encode(logits)
    for number, tile in enumerate(tiles(manifest)):
        rolled = {name: np.roll(column, 97 * number, axis=0) for name, column in fields.items()}
        block = {name: column[None, : len(tile.rows)] for name, column in rolled.items()}
        out.write_tile(tile, block, np.arange(tile.row_start, tile.row_stop, dtype=np.uint64))
    return out.finish()
