"""Ids that stay in the store are those of the whole arrays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_builder.format import header_arrays, ids
from cache_builder.format.errors import UnknownSampleError
from cache_builder.format.reader import open_cache
from tests.caches import synthetic_logits, write_synthetic_cache


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small cache, read as if its arrays were long, in several blocks."""
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(1, 100, 40))
    monkeypatch.setattr(header_arrays, "_KEPT_BYTES", 0)
    monkeypatch.setattr(ids, "_BLOCK", 16)
    return tmp_path / "c.zarr"


def test_every_id_finds_its_row_and_every_row_its_id(path: Path) -> None:
    cache = open_cache(path)
    names = list(cache.ids)
    assert list(cache.stored_ids) == names
    assert [cache.stored_ids[row] for row in range(100)] == names
    assert cache.stored_ids[20:50] == names[20:50]
    assert cache.stored_ids == cache.ids
    assert cache.stored_ids.rows_for(names[::-1]).tolist() == list(range(100))[::-1]


def test_rows_come_in_the_order_asked_for_and_may_repeat(path: Path) -> None:
    cache = open_cache(path)
    assert cache.stored_ids.rows_for([cache.ids[row] for row in (70, 3, 70)]).tolist() == [70, 3, 70]


def test_an_unknown_id_is_told_with_what_may_have_been_meant(path: Path) -> None:
    cache = open_cache(path)
    known = cache.ids[5]
    with pytest.raises(UnknownSampleError) as ours:
        cache.stored_ids.rows_for([known.upper()])
    with pytest.raises(UnknownSampleError) as whole:
        cache.rows_for([known.upper()])
    assert str(ours.value) == str(whole.value)
    assert known in str(ours.value)
