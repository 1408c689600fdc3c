"""A cache whose samples are as odd as a data set allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache_builder.format import Manifest, writer
from cache_builder.format.layout import tiles
from tests.caches import bound, no_tail, synthetic_logits, synthetic_manifest

ODD_IDS = [
    "plain.png",
    "a/b/c.png",
    "with space.png",
    "per%cent%2F.png",
    "ünïcödé/図.png",
    "question?mark.png",
    "hash#tag.png",
    "quote'\".png",
    "plus+and&.png",
    "semi;colon=.png",
    "/absolute/path.png",
    "trailing/",
    "a//b.png",
    "tab\tnew\nline.png",
]
INVALID_ROW = 3
CLASSES = 6


def write_odd_cache(path: Path, ids: Sequence[str] = tuple(ODD_IDS)) -> Manifest:
    """One view of every odd id, without labels and class names; one row could not be read."""
    rows = len(ids)
    logits = synthetic_logits(1, rows, CLASSES)[0]
    plain = synthetic_manifest(
        views=1, rows=rows, classes=CLASSES, top_k=CLASSES, tile_views=1, name="odd", named=False
    )
    codec = bound(plain.codec, no_tail(CLASSES))
    table = writer.SampleTable.from_ids(ids, None)
    arrays = writer.header_arrays(codec, table, np.zeros((1, 3, 8, 8), np.uint8))
    manifest = plain.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    fields = codec.encode(logits)
    for name, column in codec.invalid(1).items():
        fields[name][INVALID_ROW] = column[0]
    out = writer.CacheWriter(path, manifest)
    (tile,) = tiles(manifest)
    block = {name: column[None] for name, column in fields.items()}
    out.write_tile(tile, block, np.arange(rows, dtype=np.uint64), invalid_rows=[INVALID_ROW])
    return out.finish()
