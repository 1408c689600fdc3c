"""What is in memory is what the store would have answered, whichever part Zarr asks for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from cache_builder.format import held
from cache_builder.format.held import CompleteStore, HeldObject, HeldStore, Wish, fetch
from cache_builder.format.reader import open_cache
from cache_builder.format.store import open_store
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.counting import counted_requests

DATA = bytes(range(40))
PARTS = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 40), st.integers(0, 60)).map(
        lambda pair: RangeByteRequest(min(pair), max(pair))
    ),
    st.integers(0, 40).map(OffsetByteRequest),
    st.integers(1, 60).map(SuffixByteRequest),
)


def cut(wanted: ByteRequest | None) -> bytes:
    match wanted:
        case RangeByteRequest(start, stop):
            return DATA[start:stop]
        case OffsetByteRequest(offset):
            return DATA[offset:]
        case SuffixByteRequest(suffix):
            return DATA[max(0, len(DATA) - suffix) :]
    return DATA


@given(PARTS)
def test_a_part_of_a_whole_object(wanted: ByteRequest | None) -> None:
    assert HeldObject.whole(DATA).part(wanted) == cut(wanted)


@given(PARTS)
def test_of_pieces_a_part_is_right_or_not_there(wanted: ByteRequest | None) -> None:
    some = HeldObject(len(DATA), ((30, DATA[30:]), (4, DATA[4:12])))
    assert some.data is None
    assert some.part(wanted) in (None, cut(wanted))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("held") / "cache.zarr"
    write_synthetic_cache(path, synthetic_logits(3, 64, 12), tile_rows=32)
    return path


def test_a_chunk_of_a_large_shard_is_fetched_with_its_index_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [open_cache(path).read_page(view) for view in range(3)]
    monkeypatch.setattr(held, "WHOLE_BYTES", 0)
    cache = open_cache(path)
    for view in range(3):
        np.testing.assert_array_equal(cache.read_page(view), expected[view])


def test_an_index_that_was_read_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "WHOLE_BYTES", 0)
    key = next(str(file.relative_to(path)) for file in path.glob("records/**/c/*/*") if file.is_file())
    wish = Wish(key, (path / key).stat().st_size, chunks=3, chunk=1)
    with counted_requests() as requests:
        store, indexes = open_store(path, read_only=True), {}
        first = fetch(store, [wish], indexes)
        assert requests.taken() == 2
        assert fetch(store, [wish], indexes) == first
        assert requests.taken() == 1


def test_what_is_not_there_is_none_and_no_chunk_of_zeros(path: Path) -> None:
    store = open_store(path, read_only=True)
    gone = fetch(store, [Wish("records/c/9/9")], {})
    assert gone == {"records/c/9/9": None}
    prototype = default_buffer_prototype()
    assert sync(HeldStore(store, gone).get("records/c/9/9", prototype)) is None
    with pytest.raises(KeyError, match="is not there"):
        sync(CompleteStore(store, gone).get("records/c/9/9", prototype))
