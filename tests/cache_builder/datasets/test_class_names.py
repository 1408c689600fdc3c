import numpy as np
import pytest

from cache_builder.datasets.class_names import (
    first_difference,
    places_of,
    relabelled,
    require_known,
    unknown_classes,
)
from cache_builder.format.errors import DataError


def test_places_follow_names_and_not_positions() -> None:
    assert places_of(["cat", "ant", "gnu"], ["ant", "bee", "cat"]).tolist() == [2, 0, -1]


def test_a_mapping_knows_several_spellings_of_a_class() -> None:
    assert places_of(["n01", "tench"], {"n01": 0, "tench": 0}).tolist() == [0, 0]


def test_labels_take_the_other_numbering_and_none_stays_none() -> None:
    places = np.array([4, 2], np.int32)
    assert relabelled(np.array([0, 1, -1, 1], np.int32), places).tolist() == [4, 2, -1, 2]


def test_the_first_difference_names_both_sides() -> None:
    assert first_difference(["a", "b"], ["a", "c"]) == "class 1 (counted from 0) is 'b' here and 'c' there"
    assert "missing" in first_difference(["a"], ["a", "b"])
    assert first_difference(["a"], ["a"]) == ""


def test_an_unknown_name_is_refused_with_both_lists() -> None:
    with pytest.raises(DataError, match=r"d: 1 of its 2 classes.*the student: 'zebra'.*rename it"):
        require_known(["ant", "zebra"], ["ant", "yak"], "d", "the student", "rename it")


def test_what_is_shown_differs_also_where_one_list_is_longer() -> None:
    told = unknown_classes(["zebra"], ["a", "b", "zebra"], ["a", "b"], "the teacher")
    assert "class 2 (counted from 0) is 'zebra' here and missing there" in told
