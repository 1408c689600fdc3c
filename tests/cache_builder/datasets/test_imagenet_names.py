"""What ImageNet's classes are called, with and without timm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cache_builder.datasets import imagenet_names as names

pytest.importorskip("timm")

from timm.data.imagenet_info import ImageNetInfo

INFO = ImageNetInfo("imagenet-1k")
WNIDS = list(INFO.label_names())


@pytest.fixture
def without_timm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names._spellings_of.cache_clear()
    monkeypatch.setattr(names, "_timm_info", lambda _: None)
    yield
    names._spellings_of.cache_clear()


def places(data: list[str], teacher: tuple[str, ...] | None = None) -> list[int]:
    known = names.spellings(teacher or names.imagenet_names())
    assert known is not None
    found = names.find(known, data)
    assert found.is_whole
    return found.places.tolist()


def test_every_spelling_leads_to_the_class() -> None:
    for data in (
        ["n01440764", "n07920052"],
        ["tench", "espresso"],
        ["tench, Tinca tinca", "Espresso"],
        ["Tinca_tinca", "espresso"],
        ["n01440764-tench", "n07920052_espresso"],
    ):
        assert places(data) == [0, 967]


def test_whole_lists_in_any_order_are_themselves() -> None:
    categories = names.imagenet_names()
    assert places(list(categories)) == list(range(1000))
    by_letter = sorted(categories)
    assert [categories[place] for place in places(by_letter)] == by_letter
    assert places(WNIDS[::-1]) == list(range(999, -1, -1))
    described = [INFO.index_to_description(place) for place in range(1000)]
    assert places(described) == list(range(1000))
    assert places(["n02012849", "n03126707"], tuple(described)) == [134, 517]


@pytest.mark.parametrize("name", ["crane", "maillot", "cardigan", "Cardigan", "missile"])
def test_words_of_two_classes_are_ambiguous(name: str) -> None:
    known = names.spellings(names.imagenet_names())
    assert known is not None
    assert list(names.find(known, ["tench", name]).ambiguous) == [name]


def test_own_names_are_not_taken_for_imagenets() -> None:
    assert names.spellings(tuple(f"thing {place}" for place in range(1000))) is None
    assert names.spellings(tuple(sorted(names.imagenet_names()))) is None
    assert names.assumed_names(1000, ["tench", "my cat"]) is None
    assert names.assumed_names(10, ["tench"]) is None


def test_larger_sets_of_timm_are_known() -> None:
    larger = ImageNetInfo("imagenet-12k")
    described = tuple(larger.index_to_description(place) for place in range(11821))
    assert places([larger.index_to_label_name(7)], described) == [7]


class TestWithoutTimm:
    @pytest.fixture(autouse=True)
    def absent(self, without_timm: None) -> None:
        """timm cannot be asked."""

    def test_torchvisions_words_and_the_whole_set_of_ids_are_known(self) -> None:
        assert places(["tench", "espresso"]) == [0, 967]
        assert places(WNIDS) == list(range(1000))
        assert places(WNIDS[::-1]) == list(range(999, -1, -1))

    def test_repeated_words_are_still_ambiguous(self) -> None:
        assert names.assumed_names(1000, ["crane"]) is not None
        found = names.assumed_names(1000, ["crane"])
        assert found is not None
        assert found[1].ambiguous == {"crane": (134, 517)}

    def test_a_few_ids_are_not(self) -> None:
        assert names.assumed_names(1000, WNIDS[:3]) is None
        assert names.are_wnids(WNIDS[:3])
