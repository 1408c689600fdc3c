"""What a cache of many tiles takes to open: the index of its commits is read, parsed and checked."""

from __future__ import annotations

import json
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache_builder.format import open_cache, writer
from cache_builder.format.commits import INDEX_KEY, Shard, identity_bytes, index_bytes, make_commit
from cache_builder.format.ids import DecimalIds
from cache_builder.format.layout import ROOT_ATTRIBUTE, tile_arrays, tiles
from cache_builder.format.manifest import build_digest, cache_digest
from cache_builder.format.root import read_body
from cache_builder.format.statistics import TileStatistics
from tests.caches import bound, fit_basis, synthetic_logits, synthetic_manifest, synthetic_names

ROWS_PER_TILE = 4


@dataclass(frozen=True)
class Opening:
    """Opening a cache of so many tiles."""

    tiles: int
    processor_s: float
    memory_bytes: int
    """What stays of it in memory."""
    index_bytes: int


def opening(count: int, statistics: TileStatistics) -> Opening:
    """Measure it: a cache with commits of ``statistics``, whose records nobody wrote, is opened twice."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiles.zarr"
        _write(path, count, statistics)
        began = time.process_time()
        open_cache(path)
        processor_s = time.process_time() - began
        tracemalloc.start()
        kept = open_cache(path)
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return Opening(len(kept.tiles), processor_s, memory, (path / INDEX_KEY).stat().st_size)


def _write(path: Path, count: int, statistics: TileStatistics) -> None:
    """A sealed cache but for its records."""
    rows = count * ROWS_PER_TILE
    plain = synthetic_manifest(views=1, rows=rows, tile_views=1, tile_rows=ROWS_PER_TILE, sketch=False)
    codec = bound(plain.codec, fit_basis(synthetic_logits(1, 256, plain.classes)[0], 8))
    table = writer.SampleTable.from_ids(DecimalIds(rows), None, synthetic_names(plain))
    arrays = writer.header_arrays(codec, table, np.zeros((1, 3, 8, 8), np.uint8))
    manifest = plain.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    body: dict[str, Any] = read_body(path) or {}
    build = build_digest(body)
    shard = Shard(bytes=123_456, crc32=2**31)
    commits = [
        make_commit(
            manifest, build, tile, (), {spec.path: shard for spec in tile_arrays(manifest, tile)}, statistics
        ).to_bytes()
        for tile in tiles(manifest)
    ]
    body["cache_id"] = cache_digest(body, map(identity_bytes, commits))
    (path / INDEX_KEY).write_bytes(index_bytes(commits))
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"][ROOT_ATTRIBUTE] = body
    (path / "zarr.json").write_text(json.dumps(root))
