"""Ids that stay in their store are looked up as those in memory are."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_builder.format import header_arrays
from cache_builder.format.errors import UnknownSampleError
from cache_builder.format.reader import open_cache
from tests.caches import synthetic_logits, write_synthetic_cache


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(1, 100, 40))
    monkeypatch.setattr(header_arrays, "_KEPT_BYTES", 0)
    return tmp_path / "c.zarr"


def test_an_unknown_id_is_told_with_what_may_have_been_meant(path: Path) -> None:
    cache = open_cache(path)
    known = cache.ids[5]
    with pytest.raises(UnknownSampleError) as ours:
        cache.stored_ids.rows_for([known.upper()])
    with pytest.raises(UnknownSampleError) as whole:
        cache.rows_for([known.upper()])
    assert str(ours.value) == str(whole.value)
    assert known in str(ours.value)


def test_ids_of_a_slice_are_those_of_the_whole(path: Path) -> None:
    cache = open_cache(path)
    assert list(cache.stored_ids[20:23]) == list(cache.ids[20:23])
    assert len(cache.stored_ids) == len(cache.ids)
