from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cache_builder.views.photometric import ColorJitter, Erasing

ROWS = np.arange(4000)


class TestJitter:
    def test_factors_are_uniform_in_torchvisions_ranges(self) -> None:
        drawn = ColorJitter(brightness=0.4, contrast=1.5, saturation=0, hue=0.2).draw(1, 2, ROWS)
        for column, (low, high) in ((0, (0.6, 1.4)), (1, (0.0, 2.5)), (3, (-0.2, 0.2))):
            factors = drawn.factors[:, column]
            assert stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue > 1e-3
        assert set(drawn.factors[:, 2]) == {1.0}

    def test_every_order_occurs(self) -> None:
        drawn = ColorJitter().draw(1, 2, ROWS)
        orders, counts = np.unique(drawn.order, axis=0, return_counts=True)
        assert len(orders) == math.factorial(4)
        assert np.abs(counts - 4000 / 24).max() < 5 * np.sqrt(4000 / 24)

    def test_probability(self) -> None:
        drawn = ColorJitter(probability=0.3).draw(1, 2, ROWS)
        untouched = (drawn.factors == [1, 1, 1, 0]).all(axis=1)
        assert untouched.mean() == pytest.approx(0.7, abs=0.04)

    def test_pinned(self) -> None:
        drawn = ColorJitter().draw(7, 3, np.array([0, 5, 10**6]))
        assert drawn.order.tolist() == [[2, 3, 1, 0], [2, 3, 1, 0], [0, 2, 3, 1]]
        np.testing.assert_allclose(
            drawn.factors,
            [
                [1.16776621, 1.02325038, 0.67485735, 0.04961386],
                [1.16718298, 0.87862291, 1.13290936, 0.09670552],
                [1.29352108, 0.82040567, 0.83169972, 0.05573676],
            ],
            atol=1e-8,
        )


class TestErasing:
    def test_boxes_lie_inside_and_have_the_area_and_aspect_asked_for(self) -> None:
        boxes = Erasing(probability=1).draw(1, 2, ROWS)
        top, left, bottom, right = boxes.T
        assert (boxes >= 0).all()
        assert (boxes <= 1).all()
        area, aspect = (bottom - top) * (right - left), (bottom - top) / (right - left)
        assert area.min() >= 0.02 - 1e-12
        assert area.max() <= 0.33 + 1e-12
        assert aspect.min() >= 0.3 - 1e-9
        assert aspect.max() <= 3.3 + 1e-9
        # What does not fit is drawn again, so large and slim boxes are rarer: near uniform all the same.
        assert area.mean() == pytest.approx(0.175, abs=0.01)
        assert np.log(aspect).mean() == pytest.approx(0, abs=0.05)

    def test_probability(self) -> None:
        boxes = Erasing(probability=0.25).draw(1, 2, ROWS)
        assert (boxes != 0).any(axis=1).mean() == pytest.approx(0.25, abs=0.04)
        assert not Erasing(probability=0).draw(1, 2, ROWS).any()

    def test_a_box_that_never_fits_is_none(self) -> None:
        assert not Erasing(probability=1, min_area=1, max_area=1, min_aspect=2).draw(1, 2, ROWS).any()

    def test_pinned(self) -> None:
        np.testing.assert_allclose(
            Erasing(probability=1).draw(7, 3, np.array([0, 5, 10**6])),
            [
                [0.01277658, 0.110616, 0.97946387, 0.44099311],
                [0.12579946, 0.09979676, 0.97583067, 0.38995977],
                [0.11680402, 0.47904454, 0.33204606, 0.77302083],
            ],
            atol=1e-8,
        )

    def test_colours(self) -> None:
        assert Erasing().colour == (0, 0, 0)
        assert Erasing(fill="mean").colour == (124, 116, 104)
