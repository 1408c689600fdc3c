"""Who reads block after block is seen to do so, and nothing is fetched ahead twice."""

from __future__ import annotations

from cache_builder.format.walk import Walk


def coming(*steps: tuple[str, int, int], most: int = 8) -> list[range]:
    walk, found = None, []
    for step in steps:
        walk = Walk.on(walk, *step, most)
        found.append(walk.coming)
    return found


def test_a_walk_is_two_steps_and_each_block_comes_once() -> None:
    first, *others = coming(*(("a", block, block) for block in range(6)))
    assert not first
    assert others == [range(2, 6), range(6, 11), range(11, 12), range(12, 13), range(13, 14)]


def test_no_more_than_allowed() -> None:
    assert coming(*(("a", block, block) for block in range(4)), most=1)[1:] == [
        range(2, 3), range(3, 4), range(4, 5),
    ]  # fmt: skip
    assert not any(coming(*(("a", block, block) for block in range(4)), most=0))


def test_steps_of_several_blocks() -> None:
    assert coming(("a", 0, 4), ("a", 5, 9), ("a", 10, 14))[1:] == [range(10, 14), range(15, 23)]


def test_another_view_and_a_jump_begin_anew() -> None:
    assert not any(coming(("a", 0, 0), ("b", 1, 1), ("b", 3, 3), ("b", 3, 3), ("b", 2, 2)))
