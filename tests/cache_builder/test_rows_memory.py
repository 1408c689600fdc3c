"""Memory does not grow with the rows of a cache: of what begins one, and of what looks at all of one.

Sizes of blocks are made small, so that caches of few rows have many of them, as large ones do.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import rows_memory
from cache_builder.console.progress import SILENT
from cache_builder.format import columns, commits, header_arrays, ids, layout, reader, stored_arrays, writer
from cache_builder.format.ids import DecimalIds
from cache_builder.look.inspect import describe
from cache_builder.verify.run import verify
from cache_builder.verify.settings import VerifySettings
from tests.caches import (
    bound,
    no_tail,
    synthetic_logits,
    synthetic_manifest,
    synthetic_names,
    write_synthetic_cache,
)

ROWS, TILE_ROWS, CLASSES = 2**14, 2**12, 4
ROW_BYTES = 4
"""A row may add so many bytes: its part of a tile's commit. Its id, offset and label alone have 29."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "HEADER_CHUNK_BYTES", 2**14)
    monkeypatch.setattr(header_arrays, "_KEPT_BYTES", 0)
    monkeypatch.setattr(reader, "BATCH_BYTES", 2**14)
    monkeypatch.setattr(stored_arrays, "BATCH_BYTES", 2**14)
    monkeypatch.setattr(columns, "_ROWS", 2**10)
    monkeypatch.setattr(ids, "_BLOCK", 2**10)
    monkeypatch.setattr(commits, "_PARSED", 4)


def growth(look: Callable[[int], object]) -> float:
    """Bytes by which the peak of memory grows for each row more."""

    def peak(rows: int) -> int:
        tracemalloc.start()
        look(rows)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    look(ROWS)  # what is imported and kept the first time does not count
    return (peak(4 * ROWS) - peak(ROWS)) / (3 * ROWS)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "HEADER_CHUNK_BYTES", 2**14)
        for rows in (ROWS, 4 * ROWS):
            found[rows] = tmp_path_factory.mktemp("rows") / "c.zarr"
            logits = synthetic_logits(1, rows, CLASSES)
            write_synthetic_cache(found[rows], logits, top_k=CLASSES, tile_views=1, tile_rows=TILE_ROWS)
    return found


def test_of_beginning_a_cache(tmp_path: Path) -> None:
    def begin(rows: int) -> None:
        settings = {"classes": CLASSES, "top_k": CLASSES, "tile_views": 1, "tile_rows": TILE_ROWS}
        plain = synthetic_manifest(views=1, rows=rows, **settings)  # type: ignore[arg-type]
        codec = bound(plain.codec, no_tail(CLASSES))
        table = writer.SampleTable.from_ids(DecimalIds(rows, 10**17), None, synthetic_names(plain))
        arrays = writer.header_arrays(codec, table, np.zeros((1, 3, 8, 8), np.uint8))
        manifest = plain.model_copy(update={"digests": writer.header_digests(arrays)})
        path = tmp_path / f"{rows}-{len(list(tmp_path.iterdir()))}.zarr"
        writer.create(path, manifest, arrays)

    assert growth(begin) < ROW_BYTES


def test_of_inspecting_one(caches: dict[int, Path]) -> None:
    assert growth(lambda rows: describe(str(caches[rows]), None, 0)) < ROW_BYTES


def test_of_inspecting_a_sample_by_its_id(caches: dict[int, Path]) -> None:
    sample = f"dir/img_{ROWS - 1:05d}.png"
    assert growth(lambda rows: describe(str(caches[rows]), sample, 0)) < ROW_BYTES


def test_of_verifying_one(caches: dict[int, Path]) -> None:
    def look(rows: int) -> None:
        assert verify(VerifySettings(cache=str(caches[rows])), SILENT).exit_code == 0

    assert growth(look) < ROW_BYTES


@pytest.mark.slow
def test_of_a_million_rows_against_a_tenth_of_them(tmp_path: Path) -> None:
    """What processes measure of themselves: a build as a whole, and every way to look at the cache."""
    few, many = (
        {
            what: value
            for name in rows_memory.MEASURES
            for what, value in rows_memory.in_a_process(name, str(tmp_path / f"{rows}.zarr"), rows).items()
        }
        for rows in (100_000, 1_000_000)
    )
    # An id, its offset and its label have 30 bytes; what is read and written at once is still growing here.
    for what in ("tiles", "seal", "inspect", "inspect --sample", "verify", "open, one row by number"):
        grown = (many[f"{what}, peak MB"] - few[f"{what}, peak MB"]) * 1e6 / 900_000
        assert grown < 30, (what, grown)
    assert many["ids looked at, a tile"] == many["keys listed, a tile"] == 0
