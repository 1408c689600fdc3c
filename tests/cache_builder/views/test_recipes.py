from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.transforms import RandomResizedCrop

from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import NamedConfiguration
from cache_builder.views import RECIPES, Recipe, draw, named, parse_recipe, recipe_from
from cache_builder.views.recipes import Box, PadCropFlip, Plain, RrcFlip

ROWS = np.arange(4000)
SIZES = st.tuples(st.integers(1, 700), st.integers(1, 700))


def boxes(recipe: Recipe, height: int, width: int, rows: NDArray[np.int64] = ROWS) -> NDArray[np.int64]:
    """[n, 4]: top, left, height, width."""
    crops = draw(recipe, 3, 1, rows).crop
    return np.array([recipe.box(numbers, height, width) for numbers in crops])


class TestDraw:
    @pytest.mark.parametrize("name", RECIPES)
    def test_order_and_batch_do_not_matter(self, name: str) -> None:
        recipe = RECIPES[name]()
        rows = np.array([3, 900, 17, 0])
        whole = draw(recipe, 5, 2, rows, samples=1000)
        for index, row in enumerate(rows):
            alone = draw(recipe, 5, 2, np.array([row]), samples=1000)
            np.testing.assert_array_equal(alone.crop[0], whole.crop[index])
            assert alone.flip[0] == whole.flip[index]

    @pytest.mark.parametrize(
        ("flip", "low", "high"), [(0.5, 0.46, 0.54), (0.2, 0.17, 0.23), (0, 0, 0), (1, 1, 1)]
    )
    @pytest.mark.parametrize("kind", [RrcFlip, PadCropFlip])
    def test_flip_rate(self, kind: type[RrcFlip | PadCropFlip], flip: float, low: float, high: float) -> None:
        assert low <= draw(kind(flip=flip), 0, 0, ROWS).flip.mean() <= high

    def test_flip_and_crop_are_independent(self) -> None:
        params = draw(RrcFlip(), 0, 0, ROWS)
        correlation = np.corrcoef(params.flip, params.crop[:, 0])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(len(ROWS))

    def test_plain_draws_nothing(self) -> None:
        params = draw(Plain(), 0, 0, ROWS[:3])
        assert params.crop.shape == (3, 0)
        assert not params.flip.any()

    def test_pinned_boxes(self) -> None:
        """What existing caches were rendered with."""
        found = [recipe.box(draw(recipe, 7, 3, np.array([11])).crop[0], 375, 500)
                 for recipe in (RrcFlip(), PadCropFlip(), Plain())]  # fmt: skip
        assert found == PINNED


PINNED = [Box(129, 88, 233, 262), Box(37, 36, 375, 500), Box(24, 86, 328, 328)]


class TestRrcFlip:
    @pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (224, 224)])
    def test_area_and_aspect_are_distributed_as_torchvisions(self, height: int, width: int) -> None:
        torch.manual_seed(0)
        image = torch.zeros(3, height, width)
        theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in ROWS])
        ours = boxes(RrcFlip(), height, width)
        for measure in (area, aspect, top_share, left_share):
            distance = kolmogorov(measure(ours, height, width), measure(theirs, height, width))
            # Two samples of 4,000 from one distribution: beyond .0436 once in a thousand times.
            assert distance < 0.0436, measure.__name__

    @given(size=SIZES, row=st.integers(0, 10**6))
    def test_inside_the_image(self, size: tuple[int, int], row: int) -> None:
        height, width = size
        top, left, h, w = boxes(RrcFlip(), height, width, np.array([row]))[0]
        assert h > 0 <= top
        assert w > 0 <= left
        assert top + h <= height
        assert left + w <= width

    def test_ten_misses_give_torchvisions_centre_crop(self) -> None:
        for height, width in ((10, 1000), (1000, 10), (1, 50)):
            fallback = RrcFlip(min_area=1.0)
            theirs = RandomResizedCrop.get_params(torch.zeros(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
            assert fallback.box(draw(fallback, 0, 0, np.array([0])).crop[0], height, width) == theirs

    def test_parameters_bound_the_area(self) -> None:
        found = boxes(RrcFlip(min_area=0.3, max_area=0.4, min_aspect=1, max_aspect=1), 300, 300)
        share = area(found, 300, 300)
        assert 0.295 < share.min() < 0.31
        assert 0.39 < share.max() < 0.405
        assert (found[:, 2] == found[:, 3]).all()

    def test_every_offset_occurs(self) -> None:
        found = boxes(RrcFlip(min_area=0.25, max_area=0.25, min_aspect=1, max_aspect=1), 8, 8)
        assert (found[:, 2:] == 4).all()
        assert set(found[:, 0]) == set(found[:, 1]) == set(range(5))


class TestPadCropFlip:
    def test_moves_by_up_to_the_padding(self) -> None:
        found = boxes(PadCropFlip(), 32, 32)
        assert set(found[:, 0]) == set(found[:, 1]) == set(range(-4, 5))
        assert (found[:, 2:] == 32).all()

    def test_sides_have_their_own_padding(self) -> None:
        found = boxes(PadCropFlip(pad=0.25), 8, 16)
        assert set(found[:, 0]) == set(range(-2, 3))
        assert set(found[:, 1]) == set(range(-4, 5))

    def test_no_padding(self) -> None:
        assert set(map(tuple, boxes(PadCropFlip(pad=0), 8, 8, ROWS[:50]))) == {(0, 0, 8, 8)}


class TestPlain:
    def test_centre_square(self) -> None:
        assert boxes(Plain(crop_fraction=0.5), 100, 200, ROWS[:1]).tolist() == [[25, 75, 50, 50]]

    @given(size=SIZES, fraction=st.floats(0.001, 1))
    def test_inside_the_image(self, size: tuple[int, int], fraction: float) -> None:
        height, width = size
        box = Plain(crop_fraction=fraction).box(np.zeros(0), height, width)
        assert 0 < box.height == box.width
        assert 0 <= box.top <= height - box.height
        assert 0 <= box.left <= width - box.width

    def test_has_one_view(self) -> None:
        assert Plain().max_views() == 1
        assert RrcFlip().max_views() is None


class TestNames:
    @pytest.mark.parametrize("name", RECIPES)
    def test_manifest_round_trip(self, name: str) -> None:
        recipe = RECIPES[name]()
        assert recipe_from(named(recipe)) == recipe
        assert parse_recipe(name) == recipe

    def test_parameters(self) -> None:
        assert parse_recipe("rrc-flip:min_area=0.25, flip=0") == RrcFlip(min_area=0.25, flip=0)
        assert parse_recipe("plain:crop_fraction=1") == Plain(crop_fraction=1)
        assert parse_recipe("pad-crop-flip:") == PadCropFlip()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("rrcflip", "did you mean 'rrc-flip'"),
            ("", "known: augment, color-jitter, cutmix, mixup, pad-crop-flip, plain"),
            ("rrc-flip:flip", "expected name=value, found 'flip'"),
            ("rrc-flip:flip=2", "flip: Input should be less than or equal to 1"),
            ("rrc-flip:flip=often", "flip: Input should be a valid number"),
            ("rrc-flip:min_aspect=inf", "min_aspect: Input should be a finite number"),
            ("rrc-flip:min_area=0", "min_area: Input should be greater than 0"),
            ("rrc-flip:min_area=0.5,max_area=0.4", "min_area = 0.5 is more than max_area = 0.4"),
            ("rrc-flip:min_aspect=2", "min_aspect = 2 is more than max_aspect = 1.33"),
            ("plain:size=3", "size: .*its parameters are crop_fraction"),
        ],
    )
    def test_refused(self, text: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            parse_recipe(text)

    def test_a_manifest_of_a_later_release(self) -> None:
        with pytest.raises(ConfigError, match="unknown recipe 'rand-augment'"):
            recipe_from(NamedConfiguration(name="rand-augment", configuration={}))


def area(found: NDArray[np.int64], height: int, width: int) -> NDArray[np.float64]:
    return found[:, 2] * found[:, 3] / (height * width)


def aspect(found: NDArray[np.int64], height: int, width: int) -> NDArray[np.float64]:
    return found[:, 3] / found[:, 2]


def top_share(found: NDArray[np.int64], height: int, width: int) -> NDArray[np.float64]:
    return found[:, 0] / height


def left_share(found: NDArray[np.int64], height: int, width: int) -> NDArray[np.float64]:
    return found[:, 1] / width


def kolmogorov(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Largest distance between two empirical distribution functions."""
    points = np.sort(np.concatenate([first, second]))
    below = [np.searchsorted(np.sort(values), points, "right") / len(values) for values in (first, second)]
    return float(np.abs(below[0] - below[1]).max())
