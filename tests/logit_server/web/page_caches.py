"""Caches for tests of the pages: with everything that a build measures, and with names that are HTML."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cache_builder.build.statistics import INVALID, StatisticsMeter
from cache_builder.format import Manifest, writer
from cache_builder.format.class_names import ClassNames
from cache_builder.format.layout import tiles
from cache_builder.format.statistics import TileStatistics
from tests.caches import synthetic_fit, synthetic_manifest
from tests.rate_points import rate_point, with_table

VIEWS, ROWS, CLASSES = 4, 300, 40
NAMES = ("<b>bold</b>", "cat & dog", *(f"class {index}" for index in range(2, CLASSES)))
HTML_ID = "<img src=x onerror=alert(1)>.png"
SCRIPT_ID = '"><script>alert(2)</script>'
ODD_ROWS = {0: HTML_ID, 1: SCRIPT_ID, 2: "ünïcödé/図.png", 3: "tab\tnew\nline.png"}
INVALID_ROW = 7


def ids() -> list[str]:
    """By row; most are in one of two folders."""
    return [ODD_ROWS.get(row, f"{'left' if row % 2 else 'right'}/{row:04d}.jpg") for row in range(ROWS)]


def labels() -> NDArray[np.int32]:
    """By row; every eleventh sample has none."""
    rows = np.arange(ROWS)
    return np.where(rows % 11 == 10, -1, rows % CLASSES).astype(np.int32)


def logits() -> NDArray[np.float32]:
    """[V, N, C] of a teacher that is right about most samples, and not always sure."""
    rng = np.random.default_rng(3)
    found = rng.normal(size=(VIEWS, ROWS, CLASSES))
    known = labels().clip(0)
    found[:, np.arange(ROWS), known] += rng.uniform(0, 8, ROWS)
    return found.astype(np.float32)


def write_page_cache(path: Path, name: str = "pages") -> Manifest:
    """A cache with a calibration table, statistics of every tile, odd ids and class names, an invalid row."""
    plain = synthetic_manifest(
        views=VIEWS, rows=ROWS, classes=CLASSES, tile_views=2, tile_rows=64, name=name, sketch=True
    )
    table = (rate_point(20.0, 0.1), rate_point(30.0, 0.02), rate_point(35.0, 0.05), rate_point(60.0, 0.001))
    manifest = with_table(*table, chosen=1, manifest=plain)
    values = logits()
    codec = synthetic_fit(manifest.codec, values.reshape(-1, CLASSES))
    sample_table = writer.SampleTable.from_ids(ids(), labels(), ClassNames(NAMES))
    arrays = writer.header_arrays(codec, sample_table, np.zeros((1, 3, 8, 8), np.uint8))
    manifest = manifest.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    out = writer.CacheWriter(path, manifest)
    for tile in tiles(manifest):
        block = values[tile.view_start : tile.view_stop, tile.row_start : tile.row_stop]
        fields = codec.encode(block.reshape(-1, CLASSES))
        shaped = {key: value.reshape(*block.shape[:2], *value.shape[1:]) for key, value in fields.items()}
        invalid = [row for row in (INVALID_ROW,) if tile.row_start <= row < tile.row_stop]
        for row in invalid:
            for key, column in codec.invalid(1).items():
                shaped[key][:, row - tile.row_start] = column[0]
        rows = np.arange(tile.row_start, tile.row_stop)
        out.write_tile(tile, shaped, rows.astype(np.uint64), invalid, _statistics(block, rows))
    return out.finish()


def _statistics(block: NDArray[np.float32], rows: NDArray[np.int64]) -> TileStatistics:
    """Of logits [views, rows, C] of a tile."""
    meter = StatisticsMeter(CLASSES, torch.device("cpu"))
    known = np.where(rows == INVALID_ROW, INVALID, labels()[rows])
    for view in block:
        meter.add(torch.from_numpy(view), torch.from_numpy(known.astype(np.int64)))
    return meter.take()
