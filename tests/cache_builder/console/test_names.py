from __future__ import annotations

from cache_builder.console.names import unknown_name


def test_nearest() -> None:
    known = ["vit_l_16", "vit_b_16", "resnet50"]
    assert unknown_name("teacher", "vit_l16", known).startswith(
        "unknown teacher 'vit_l16': did you mean 'vit_l_16'"
    )


def test_nothing_near_lists_what_there_is() -> None:
    assert unknown_name("recipe", "zzz", ["b", "a"]) == "unknown recipe 'zzz': known: a, b"
    assert unknown_name("recipe", "zzz", map(str, range(100))).count(",") < 30
