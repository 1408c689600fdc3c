"""Reading some rows of a view: what export, merge and extend are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache_builder.format.errors import DataError, IncompleteCacheError
from cache_builder.format.reader import open_cache
from tests.caches import synthetic_logits, write_synthetic_cache

LOGITS = synthetic_logits(3, 100, 40)


@pytest.mark.parametrize("rows", [range(100), range(5), range(30, 70), range(96, 100), range(7, 7)], ids=str)
def test_rows_are_those_of_the_page(tmp_path: Path, rows: range) -> None:
    write_synthetic_cache(tmp_path / "c.zarr", LOGITS)
    cache = open_cache(tmp_path / "c.zarr")
    for view in range(3):
        page = cache.read_page(view)
        np.testing.assert_array_equal(cache.read_rows(view, rows), page[rows.start : rows.stop])
    assert cache.read_digests(rows).tolist() == list(rows)


def test_only_the_tiles_of_the_rows_must_be_there(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "c.zarr", LOGITS, commit=2)
    cache = open_cache(tmp_path / "c.zarr", allow_partial=True)
    assert len(cache.read_rows(1, range(64))) == len(cache.read_digests(range(64))) == 64
    for read in (lambda: cache.read_rows(1, range(65)), lambda: cache.read_digests(range(65))):
        with pytest.raises(IncompleteCacheError):
            read()


def test_out_of_range(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "c.zarr", LOGITS)
    cache = open_cache(tmp_path / "c.zarr")
    for rows in (range(90, 101), range(-1, 5), range(0, 10, 2)):
        with pytest.raises(DataError, match="out of range"):
            cache.read_rows(0, rows)
