from __future__ import annotations

from collections import Counter
from math import isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cache_builder.views.pairing import Pairing, pairs_first

MASK = 2**64 - 1


def everybody(seed: int, view: int, samples: int) -> NDArray[np.int64]:
    return Pairing(seed, view, samples).partners(np.arange(samples))


def reference(seed: int, view: int, samples: int) -> list[int]:
    """VIEWS.md in plain integers, written from its text."""
    words = (
        np.random.Philox(key=np.array([seed, view], np.uint64), counter=np.array([0, 0, 7, 0], np.uint64))
        .random_raw(12)
        .tolist()
    )
    keys = [(words[2 * i], words[2 * i + 1]) for i in range(6)]
    a = isqrt(samples - 1) + 1
    b = -(-samples // a)

    def scrambled(x: int, key: int) -> int:
        z = (x + key) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def once(x: int) -> int:
        left, right = divmod(x, b)
        for first, second in keys:
            left = (left + scrambled(right, first) % a) % a
            right = (right + scrambled(left, second) % b) % b
        return left * b + right

    def place(row: int) -> int:
        row = once(row)
        while row >= samples:
            row = once(row)
        return row

    row_at = {place(row): row for row in range(samples)}
    return [row_at.get(place(row) ^ 1, row) for row in range(samples)]


@given(st.integers(0, MASK), st.integers(0, 2**32), st.integers(1, 400))
def test_an_involution_that_leaves_at_most_one_alone(seed: int, view: int, samples: int) -> None:
    partners = everybody(seed, view, samples)
    np.testing.assert_array_equal(partners[partners], np.arange(samples))
    assert (partners == np.arange(samples)).sum() == samples % 2


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 1000, 1001])
def test_many_views(samples: int) -> None:
    pairings = [everybody(3, view, samples) for view in range(60)]
    for partners in pairings:
        np.testing.assert_array_equal(partners[partners], np.arange(samples))
    if samples >= 1000:
        assert len({partners.tobytes() for partners in pairings}) == 60
        same = np.mean([(pairings[0] == other).mean() for other in pairings[1:]])
        assert same < 0.01, "partners of one view are not those of another"


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 12, 97, 256])
def test_as_the_format_page_says(samples: int) -> None:
    for seed, view in ((7, 3), (MASK, 1)):
        assert everybody(seed, view, samples).tolist() == reference(seed, view, samples)


def test_pinned_pairs() -> None:
    """These decide whom every mixed view shows: they may never change."""
    assert everybody(7, 3, 1).tolist() == [0]
    assert everybody(7, 3, 2).tolist() == [1, 0]
    assert everybody(7, 3, 11).tolist() == [9, 1, 5, 6, 10, 2, 3, 8, 7, 0, 4]
    assert Pairing(7, 3, 2 * 10**6).partners(np.array([0, 5, 10**6])).tolist() == [1902063, 1642475, 1379647]


def test_any_order_and_batch() -> None:
    rows = np.array([3, 900, 17, 0, 17])
    whole = Pairing(5, 2, 1281167).partners(rows)
    for index, row in enumerate(rows):
        assert Pairing(5, 2, 1281167).partners(np.array([row])).tolist() == [whole[index]]


@pytest.mark.parametrize("samples", [6, 7, 12])
def test_every_other_row_is_as_likely_a_partner(samples: int) -> None:
    views = 3000
    found = np.stack([everybody(1, view, samples) for view in range(views)])
    expected = views / (samples - 1 + samples % 2)
    deviation = np.sqrt(expected)
    for row in range(samples):
        counts = np.bincount(found[:, row], minlength=samples)
        assert np.abs(np.delete(counts, row) - expected).max() < 5 * deviation


def test_partners_are_not_near_each_other() -> None:
    """Data sets are sorted by class: neighbours must not be mixed more often than others."""
    partners = everybody(1, 1, 20000)
    distance = np.abs(partners - np.arange(20000)) / 20000
    # The difference of two uniform numbers: P(|d| < x) = 2x - x^2.
    for share in (0.05, 0.25, 0.5):
        assert (distance < share).mean() == pytest.approx(2 * share - share**2, abs=0.02)


def test_every_pairing_of_four_rows_occurs() -> None:
    counts = Counter(tuple(everybody(9, view, 4).tolist()) for view in range(600))
    assert len(counts) == 3
    assert min(counts.values()) > 150


class TestPairsFirst:
    def test_each_is_followed_by_its_partner(self) -> None:
        partners = everybody(2, 1, 50)
        order = pairs_first(partners)
        assert sorted(order.tolist()) == list(range(50))
        for first, second in order.reshape(-1, 2).tolist():
            assert partners[first] == second
        assert order[::2].tolist() == sorted(order[::2].tolist()), "firsts stay ascending"

    def test_of_an_order(self) -> None:
        partners = np.array([2, 1, 0, 4, 3])
        assert pairs_first(partners, np.array([3, 1, 2, 4, 0])).tolist() == [3, 4, 1, 2, 0]

    def test_partners_elsewhere(self) -> None:
        assert pairs_first(np.array([-7, 1, 9, 40])).tolist() == [0, 1, 2, 3]

    def test_without_partners_nothing_moves(self) -> None:
        order = np.array([3, 1, 2, 0])
        assert pairs_first(np.arange(4), order).tolist() == order.tolist()
        assert pairs_first(np.zeros(0, np.int64)).tolist() == []
