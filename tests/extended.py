"""Caches that get more views, as ``kdcache extend`` gives them, for tests that need no teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cache_builder.exchange.replace_folder import replace_folder
from cache_builder.exchange.tiles import copy_tile
from cache_builder.format import Manifest, open_cache, writer
from cache_builder.format.extension import EXTENDS, line_of
from cache_builder.format.layout import tiles
from tests.caches import synthetic_logits


def extend_synthetic(path: Path, views: int, *, says_so: bool = True, seed: int = 1) -> Manifest:
    """Exchange a synthetic cache for one of more views; records of the old ones stay what they are.

    ``says_so``: whether the manifest names the cache it was made from.
    """
    making = path.with_name(f".{path.name}.extending")
    manifest = write_extended(path, making, views, says_so=says_so, seed=seed)
    replace_folder(making, path)
    return manifest


def write_extended(path: Path, out: Path, views: int, *, says_so: bool, seed: int) -> Manifest:
    """Write the cache at ``path`` with more views to ``out``."""
    old = open_cache(path)
    before = old.manifest
    lineage = {EXTENDS: line_of(before)} if says_so else {}
    arrays = old.header_arrays()
    wanted = before.model_copy(
        update={
            **writer.NO_RESULTS,
            "views": before.views.model_copy(update={"count": views}),
            "environment": before.environment | lineage,
            "digests": writer.header_digests(arrays),
        }
    )
    writer.create(out, wanted, arrays)
    into = writer.CacheWriter(out, wanted)
    same = set(old.tiles)
    logits = synthetic_logits(views, before.data.samples, before.classes, seed)
    for tile in tiles(wanted):
        if tile in same:
            copy_tile(old, into, tile)
            continue
        rows = tile.rows
        records = [
            old.read_rows(view, rows)
            if view < before.views.count
            else old.codec.pack(old.codec.encode(logits[view, rows.start : rows.stop]))
            for view in tile.views
        ]
        into.write_records(tile, np.stack(records), np.array(rows, np.uint64))
    return into.finish()
