"""An unknown id names those that were probably meant."""

from __future__ import annotations

import unicodedata

import pytest

from cache_builder.format import UnknownSampleError
from cache_builder.format.ids import SampleIds
from cache_builder.format.near_ids import near_ids, told_near

KNOWN = ["cat/a.jpg", "cat/b.jpg", "dog/a.jpg", "dog/picture.jpeg"]


@pytest.mark.parametrize(
    ("unknown", "first"),
    [
        ("cat/a.jpeg", "cat/a.jpg"),
        ("cat/a", "cat/a.jpg"),
        ("CAT/B.JPG", "cat/b.jpg"),
        ("b.jpg", "cat/b.jpg"),
        ("train/dog/a.jpg", "dog/a.jpg"),
        ("dog/pictures.jpeg", "dog/picture.jpeg"),
    ],
)
def test_the_id_that_was_meant_comes_first(unknown: str, first: str) -> None:
    assert near_ids(unknown, KNOWN)[0] == first


def test_nothing_is_near_what_is_far() -> None:
    assert near_ids("zebra/9.bmp", KNOWN) == []
    assert told_near("zebra/9.bmp", []) == ""


@pytest.mark.parametrize(("ours", "theirs"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_another_normal_form_is_named(ours: str, theirs: str) -> None:
    name = "caf\u00e9/0.png"
    ids = SampleIds.of([unicodedata.normalize(theirs, name), "other/1.png"])
    with pytest.raises(
        UnknownSampleError, match=f"Unicode normal form .*, {ours}, here; .*, {theirs}, there"
    ):
        ids.rows_for([unicodedata.normalize(ours, name)])


def test_an_extension_is_found_by_the_index_also_behind_the_ids_that_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cache_builder.format.ids._MOST_SCANNED", 1)
    with pytest.raises(UnknownSampleError, match=r"near ones are 'dog/picture\.jpeg'"):
        SampleIds.of(KNOWN).rows_for(["dog/picture.jpg"])
