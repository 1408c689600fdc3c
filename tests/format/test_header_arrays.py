"""Header arrays that are read part by part say what they say when they are read whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import header_arrays, layout
from cache_builder.format.errors import CorruptCacheError, KDCacheError
from cache_builder.format.reader import open_cache
from tests.caches import synthetic_logits, write_synthetic_cache


class TestInACache:
    """The arrays of a small cache, read as if they were long."""

    @pytest.fixture
    def path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(1, 100, 40))
        monkeypatch.setattr(header_arrays, "_KEPT_BYTES", 0)
        return tmp_path / "c.zarr"

    def test_ids_and_labels_are_those_of_the_whole_arrays(self, path: Path) -> None:
        cache = open_cache(path)
        assert list(cache.stored_ids) == list(cache.ids)
        assert cache.stored_ids[7] == cache.ids[7]
        wanted = [cache.ids[row] for row in (70, 3, 70)]
        assert cache.stored_ids.rows_for(wanted).tolist() == [70, 3, 70]
        np.testing.assert_array_equal(cache.labels_of(range(20, 90)), cache.labels[20:90])
        assert cache.has_labels

    @pytest.mark.parametrize("array", ["samples/id_bytes", "samples/id_offsets", "samples/label"])
    def test_another_number_is_an_error(self, path: Path, array: str) -> None:
        chunk = path / array / "c" / "0"
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(data)
        with pytest.raises(CorruptCacheError, match=array):
            open_cache(path).check_header(array)
        chunk.unlink()
        with pytest.raises(CorruptCacheError, match=array):
            open_cache(path).check_header(array)


def test_what_went_away_after_the_check_is_an_error_and_not_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_arrays, "_KEPT_BYTES", 0)
    monkeypatch.setattr(layout, "HEADER_CHUNK_BYTES", 64)
    path = tmp_path / "c.zarr"
    write_synthetic_cache(path, synthetic_logits(1, 100, 40))
    cache = open_cache(path)
    assert cache.labels_of(range(0, 90)).tolist() == cache.labels[:90].tolist()
    path.rename(tmp_path / "away")
    with pytest.raises(KDCacheError):
        cache.labels_of(range(0, 5))
