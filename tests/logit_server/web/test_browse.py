import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_builder.format.ids import SampleIds
from logit_server.served_caches import ServedCache
from logit_server.web import browse
from logit_server.web.browse import ROWS_SHOWN, Found, Search, find, matching_rows
from logit_server.web.top_classes import TopClasses
from tests.logit_server.web.page_caches import INVALID_ROW, NAMES, ROWS, ids, labels


@pytest.fixture(scope="module")
def top(served: ServedCache) -> TopClasses:
    found = TopClasses(served)
    found.find()
    return found


def all_rows(served: ServedCache, top: TopClasses | None, search: Search) -> list[int]:
    """The rows of all pages, one after the other."""
    first = find(served, top, search)
    pages = [find(served, top, search.model_copy(update={"page": n + 1})) for n in range(first.pages)]
    assert all(len(page.rows) == ROWS_SHOWN for page in pages[:-1])
    rows = [row for page in pages for row in page.rows.tolist()]
    assert len(rows) == first.total
    return rows


@given(
    st.lists(st.text("abc/é", min_size=1, max_size=6), min_size=1, max_size=30, unique=True),
    st.text("abc/é", min_size=1, max_size=3),
)
def test_rows_whose_id_contains_a_part_are_those_that_python_finds(names: list[str], part: str) -> None:
    found = matching_rows(SampleIds.of(names), part.encode())
    assert found.tolist() == [row for row, name in enumerate(names) if part in name]


def test_ids_are_looked_through_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "_IDS_AT_ONCE", 3)
    assert matching_rows(SampleIds.of(["a", "ab", "ba", "b", "ab2"]), b"ab").tolist() == [1, 4]


def test_a_part_that_too_many_ids_have_is_cut(served: ServedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "MOST_MATCHES", 5)
    found = find(served, None, Search(id="left"))
    assert (found.total, found.is_cut) == (5, True)
    assert not find(served, None, Search(id="left/0005")).is_cut


def test_without_anything_given_every_sample_is_found(served: ServedCache) -> None:
    assert all_rows(served, None, Search()) == list(range(ROWS))


def test_by_id(served: ServedCache) -> None:
    assert all_rows(served, None, Search(id="left/")) == [
        row for row, name in enumerate(ids()) if "left/" in name
    ]


@pytest.mark.parametrize(
    ("text", "classes"),
    [("5", [5]), ("class 7", [7]), ("CAT", [1]), ("<b>", [0]), ("class", list(range(2, 40))), ("40", [])],
)
def test_by_the_number_or_name_of_a_label(text: str, classes: list[int], served: ServedCache) -> None:
    found = all_rows(served, None, Search(category=text))
    assert found == np.flatnonzero(np.isin(labels(), classes)).tolist()


def test_a_name_that_is_also_a_part_of_others_means_itself(served: ServedCache) -> None:
    assert "class 2" in NAMES
    assert "class 20" in NAMES
    assert all_rows(served, None, Search(category="class 2")) == np.flatnonzero(labels() == 2).tolist()


def test_by_the_teachers_answer(served: ServedCache, top: TopClasses) -> None:
    found = all_rows(served, top, Search(category="3", by="teacher"))
    assert found == np.flatnonzero(top.classes == 3).tolist()


def test_what_the_teacher_got_wrong(served: ServedCache, top: TopClasses) -> None:
    found = all_rows(served, top, Search(only="wrong"))
    wrong = (labels() >= 0) & (labels() != top.classes)
    wrong[INVALID_ROW] = False  # it has no answer
    assert found == np.flatnonzero(wrong).tolist()


def test_the_most_uncertain_come_first(served: ServedCache, top: TopClasses) -> None:
    found = all_rows(served, top, Search(order="uncertain"))
    assert len(found) == ROWS - 1
    assert np.all(np.diff(top.probabilities[found]) >= 0)


def test_everything_together(served: ServedCache, top: TopClasses) -> None:
    found = all_rows(served, top, Search(id="left", only="wrong", order="uncertain"))
    assert sorted(found) == [
        row
        for row in all_rows(served, top, Search(only="wrong"))
        if "left" in ids()[row]
    ]  # fmt: skip


def test_a_page_after_the_last_is_empty(served: ServedCache) -> None:
    found = find(served, None, Search(page=1000))
    assert isinstance(found, Found)
    assert (len(found.rows), found.total) == (0, ROWS)
