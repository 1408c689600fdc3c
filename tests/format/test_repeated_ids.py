"""Is every id unique, also where hashes do not fit into memory?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_builder.format import repeated_ids
from cache_builder.format.ids import DecimalIds, SampleIds
from cache_builder.format.repeated_ids import first_repeated


@pytest.fixture(params=[2**22, 8], ids=["in memory", "in files"], autouse=True)
def at_once(request: pytest.FixtureRequest) -> object:
    before = repeated_ids._AT_ONCE
    repeated_ids._AT_ONCE = request.param
    yield
    repeated_ids._AT_ONCE = before


@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=40))
@settings(deadline=None, max_examples=50)
def test_the_first_row_that_repeats_an_earlier_one(names: list[str]) -> None:
    seen: set[str] = set()
    expected = next((row for row, name in enumerate(names) if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
    assert first_repeated(SampleIds.of(names)) == expected


def test_equal_hashes_are_no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache_builder.format.ids.xxhash.xxh64_intdigest", lambda raw: 7)
    assert first_repeated(SampleIds.of([str(row) for row in range(30)])) is None
    assert first_repeated(SampleIds.of([*map(str, range(30)), "12"])) == 30


def test_numbers_are_unique() -> None:
    assert first_repeated(DecimalIds(10**12)) is None
