from cache_builder.datasets.spellings import Spellings

BIRDS = Spellings(
    ("crane bird", "crane", "tench", "Cardigan", "cardigan"),
    {
        "crane": frozenset((0, 1)),
        "n01": frozenset((2,)),
        "cardigan": frozenset((3, 4)),
    },
    str.lower,
)


def test_a_name_is_found_by_any_spelling() -> None:
    found = BIRDS.find(["n01", "CRANE BIRD"])
    assert found.is_whole
    assert found.places.tolist() == [2, 0]


def test_a_name_of_several_classes_is_not_guessed() -> None:
    found = BIRDS.find(["crane", "tench", "cardigan"])
    assert found.ambiguous == {"crane": (0, 1), "cardigan": (3, 4)}
    assert found.places.tolist() == [-1, 2, -1]
    assert not found.is_whole


def test_the_other_names_of_the_list_decide() -> None:
    found = BIRDS.find(["crane", "crane bird"])
    assert found.is_whole
    assert found.places.tolist() == [1, 0]
    assert BIRDS.find(["cardigan", "Cardigan"]).places.tolist() == [4, 3]


def test_the_whole_list_in_its_order_is_itself_even_where_names_repeat() -> None:
    repeated = Spellings(("a", "b", "a"))
    assert repeated.find(["a", "b", "a"]).is_whole
    assert repeated.find(["a", "b"]).ambiguous == {"a": (0, 2)}


def test_unknown_and_doubled_names_are_told() -> None:
    found = BIRDS.find(["n01", "tench", "gnu"])
    assert found.unknown == ("gnu",)
    assert found.doubled == (("n01", "tench"),)
