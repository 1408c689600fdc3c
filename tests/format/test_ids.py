"""Sample ids: rows by id, ids by row."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_builder.format import UnknownSampleError
from cache_builder.format.ids import DecimalIds, IdBuffer, SampleIds
from cache_builder.format.repeated_ids import first_repeated
from cache_builder.format.writer import SampleTable


def table_of(ids: list[str]) -> SampleIds:
    return SampleIds.of(SampleTable.from_ids(ids, None).ids)


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


@given(st.integers(0, 10**6), st.integers(0, 400), st.integers(0, 400), st.integers(0, 400))
@settings(deadline=None, max_examples=50)
def test_decimal_ids_are_those_of_a_list(first: int, count: int, start: int, stop: int) -> None:
    ids, expected = DecimalIds(count, first), [str(first + row) for row in range(count)]
    assert ids == expected
    assert ids[start:stop] == expected[start:stop]
    assert ids.encoded() == ids
    assert list(ids.encoded()) == expected
    assert pickle.loads(pickle.dumps(ids)) == ids


def test_decimal_ids_of_every_length() -> None:
    ids = DecimalIds(70_000, 95_000)
    assert list(ids.encoded()) == [str(row) for row in range(95_000, 165_000)]
    assert ids[-1] == "164999"
    with pytest.raises(IndexError, match="row 70000 is out of range for 70000 samples"):
        ids[70_000]


def test_a_part_holds_its_own_bytes_only() -> None:
    ids = table_of([f"id {row}" for row in range(1000)])
    part = ids[10:12]
    assert isinstance(part, SampleIds)
    assert part == ["id 10", "id 11"]
    assert part.id_bytes.size == 10
    assert ids[::-400] == ["id 999", "id 599", "id 199"]
    assert list(ids[5:2]) == []


def test_equality_is_that_of_the_strings() -> None:
    assert table_of(["a", "b"]) == ["a", "b"]
    plain = ["a", "b"]
    assert plain == table_of(plain)
    assert table_of(["ab"]) != table_of(["a", "b"])
    assert table_of(["a", "b"]) != ["a", "c"]
    assert table_of(["a"]) != ["a", "b"]
    assert table_of(["a"]) != "a"
    assert table_of(["a"]) != 3


def test_pickling_leaves_the_index_behind() -> None:
    ids = table_of([f"{row}" for row in range(1000)])
    size = len(pickle.dumps(ids))
    assert ids.rows_for(["7"]).tolist() == [7]
    assert len(pickle.dumps(ids)) == size < 12_000
    assert pickle.loads(pickle.dumps(ids)).rows_for(["7"]).tolist() == [7]


def test_the_same_ids_are_matched_without_an_index() -> None:
    ids = DecimalIds(1000).encoded()
    assert ids.rows_for(DecimalIds(1000)).tolist() == list(range(1000))
    assert ids.rows_for(ids[:10]).tolist() == list(range(10))
    assert "_index" not in vars(ids)
    assert ids.rows_for(DecimalIds(10, 5)).tolist() == list(range(5, 15))
    with pytest.raises(UnknownSampleError, match="'1000'"):
        ids.rows_for(DecimalIds(1001))


def test_many_ids_are_looked_up_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache_builder.format.ids._BLOCK", 7)
    ids = DecimalIds(100).encoded()
    assert list(ids) == [str(row) for row in range(100)]
    wanted = np.random.default_rng(0).permutation(100).tolist()
    assert ids.rows_for([str(row) for row in wanted]).tolist() == wanted
    with pytest.raises(UnknownSampleError) as caught:
        ids.rows_for([*"012", *(f"no {row}" for row in range(20)), "3"])
    assert caught.value.total == 20
    assert caught.value.sample_ids == [f"no {row}" for row in range(5)]


def test_repeated_ids_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def repeated(*names: str) -> int | None:
        return first_repeated(SampleIds.of(names))

    assert repeated("a", "b", "c") is None
    assert repeated("a", "b", "c", "b", "a") == 3
    monkeypatch.setattr("cache_builder.format.ids.xxhash.xxh64_intdigest", lambda raw: 7)
    assert repeated("a", "b", "c") is None
    assert repeated("a", "b", "c", "b", "a") == 3


@pytest.mark.parametrize(
    ("raws", "row"),
    [
        ([b"a", "é猫".encode()], None),
        ([b"a", b"\xff"], 1),
        # Each half is invalid, and together they are an e with an accent.
        (["é".encode()[:1], "é".encode()[1:]], 0),
        ([], None),
    ],
)
def test_ids_that_are_not_utf8_are_found(raws: list[bytes], row: int | None) -> None:
    buffer = IdBuffer()
    for raw in raws:
        buffer.append(raw)
    assert len(buffer) == len(raws)
    ids = buffer.finish()
    assert ids.first_invalid() == row
    assert [name.encode(errors="surrogateescape") for name in ids] == raws


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda raw: 0 not in raw), max_size=30))
@settings(deadline=None, max_examples=50)
def test_byte_order(raws: list[bytes]) -> None:
    buffer = IdBuffer()
    for raw in raws:
        buffer.append(raw)
    assert list(buffer.finish().in_byte_order()) == sorted(raws)


@pytest.mark.parametrize("ids", [SampleIds.of(["a", "", "ü/7", "b"]), DecimalIds(4, 9)])
def test_several_ids_are_those_of_each_row(ids: SampleIds | DecimalIds) -> None:
    rows = np.array([3, 0, 2, 2, 1], np.uint32)
    assert ids.at(rows) == [ids[int(row)] for row in rows]
    assert ids.at(rows[:0]) == []
