"""Sample ids: rows by id, ids by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_builder.format import UnknownSampleError
from cache_builder.format.ids import SampleIds
from cache_builder.format.writer import SampleTable


def table_of(ids: list[str]) -> SampleIds:
    table = SampleTable.from_ids(ids, None)
    return SampleIds(table.id_bytes, table.id_offsets)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=30, unique=True))
@settings(deadline=None, max_examples=50)
def test_every_id_finds_its_row_and_every_row_its_id(names: list[str]) -> None:
    ids = table_of(names)
    assert list(ids) == names
    assert [ids[row] for row in range(len(ids))] == names
    np.testing.assert_array_equal(ids.rows_for(names[::-1]), np.arange(len(names))[::-1])


def test_rows_come_in_the_order_asked_for_and_may_repeat() -> None:
    rows = table_of(["a", "b", "c"]).rows_for(["c", "a", "c"])
    assert rows.tolist() == [2, 0, 2]
    assert rows.dtype == np.int64


def test_slices_and_negative_rows() -> None:
    ids = table_of(["a", "bb", "ccc"])
    assert ids[-1] == "ccc"
    assert ids[1:] == ["bb", "ccc"]
    with pytest.raises(IndexError, match="row 3 is out of range for 3 samples"):
        ids[3]


def test_unknown_ids_are_named_up_to_five() -> None:
    with pytest.raises(UnknownSampleError) as caught:
        table_of(["a"]).rows_for(["a", *"xyzuvw"])
    assert caught.value.sample_ids == list("xyzuv")
    assert caught.value.total == 6
    assert "and 1 more" in str(caught.value)


def test_an_id_that_is_no_unicode_is_merely_unknown() -> None:
    with pytest.raises(UnknownSampleError, match="ud800"):
        table_of(["a"]).rows_for(["\ud800"])


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache_builder.format.ids.xxhash.xxh64_intdigest", lambda raw: 7)
    ids = table_of(["a", "b", "c"])
    assert ids.rows_for(["b", "c", "a"]).tolist() == [1, 2, 0]
    with pytest.raises(UnknownSampleError):
        ids.rows_for(["d"])


def test_no_ids_asked_for_gives_no_rows() -> None:
    assert table_of(["a"]).rows_for([]).shape == (0,)
