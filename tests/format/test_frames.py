from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import open_cache
from cache_builder.format.frames import record_batch, record_schema
from tests.caches import synthetic_logits, write_synthetic_cache

VIEW = 1


@pytest.mark.parametrize("kind", [None, np.float16, np.float32])
def test_columns_are_what_the_reader_decodes(tmp_path: Path, kind: type | None) -> None:
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(views=2, rows=9, classes=40), sketch=True)
    cache = open_cache(tmp_path / "c.zarr")
    records = cache.read_page(VIEW)
    stored, dense = cache.stored(records), cache.decode(records)
    schema = record_schema(cache.manifest, None if kind is None else np.dtype(kind))
    logits = None if kind is None else dense.astype(kind)
    frame = record_batch(schema, cache.ids[0:9], VIEW, cache.labels, stored, logits).to_pandas()
    assert frame.sample_id.tolist() == list(cache.ids[0:9])
    assert set(frame.view) == {VIEW}
    np.testing.assert_array_equal(frame.label, cache.labels)
    np.testing.assert_array_equal(np.stack(frame.top_ids), stored.classes)
    np.testing.assert_array_equal(np.stack(frame.top_logits), stored.values)
    if logits is not None:
        np.testing.assert_array_equal(np.stack(frame.logits), logits)


def test_what_is_missing_is_null(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(views=2, rows=9, classes=40), sketch=True)
    cache = open_cache(tmp_path / "c.zarr")
    stored = cache.stored(cache.read_page(0))
    stored.lse[1] = np.nan
    labels = np.array([4, -1, *range(7)], np.int32)
    batch = record_batch(record_schema(cache.manifest), cache.ids[0:9], 0, labels, stored)
    assert batch["label"].to_pylist() == [4, None, *range(7)]
    assert [row is None for row in batch["top_ids"].to_pylist()] == [False, True, *[False] * 7]
    assert batch["lse"].null_count == 1
