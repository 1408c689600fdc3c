"""Augmentation recipes: their parameters, how many uniforms they need, and the crop they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import Frozen, NamedConfiguration
from cache_builder.names import unknown_name
from cache_builder.views.philox import uniforms

Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Box(NamedTuple):
    """A crop in source pixels; it may reach outside the image, where pixels are black."""

    top: int
    left: int
    height: int
    width: int


class Recipe(Frozen):
    """An augmentation policy. A subclass says how many uniforms a view takes and what crop they mean."""

    def numbers(self) -> int:
        """Uniforms needed by ``box``."""
        raise NotImplementedError

    def box(self, numbers: NDArray[np.float64], height: int, width: int) -> Box:
        """The crop of an image of that size."""
        raise NotImplementedError

    def flip_probability(self) -> float:
        """Probability of a horizontal flip."""
        return 0.0

    def max_views(self) -> int | None:
        """How many different views there are; None = no limit."""
        return None


class Plain(Recipe):
    """One deterministic view: resize, then centre crop (evaluation preprocessing)."""

    crop_fraction: Fraction = 0.875
    """Side of the crop as a fraction of the image's shorter side."""

    def numbers(self) -> int:
        """None: nothing is random."""
        return 0

    def box(self, numbers: NDArray[np.float64], height: int, width: int) -> Box:
        """The centre square."""
        side = max(1, round(self.crop_fraction * min(height, width)))
        return Box(round((height - side) / 2), round((width - side) / 2), side, side)

    def max_views(self) -> int | None:
        """One."""
        return 1


class RrcFlip(Recipe):
    """Random resized crop and horizontal flip, as torchvision does it: ten attempts, then a centre crop."""

    min_area: Fraction = 0.08
    """Smallest crop area, as a fraction of the image's."""
    max_area: Fraction = 1.0
    """Largest crop area."""
    min_aspect: Annotated[float, Field(gt=0)] = 3 / 4
    """Smallest width / height of the crop."""
    max_aspect: Annotated[float, Field(gt=0)] = 4 / 3
    """Largest width / height of the crop."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for what in ("area", "aspect"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low > high:
                raise ValueError(f"min_{what} = {low:g} is more than max_{what} = {high:g}")
        return self

    def numbers(self) -> int:
        """Ten (area, aspect) attempts and one offset."""
        return 2 * _ATTEMPTS + 2

    def box(self, numbers: NDArray[np.float64], height: int, width: int) -> Box:
        """The first attempt that fits the image."""
        y, x = numbers[-2:]
        for area_u, aspect_u in numbers[:-2].reshape(_ATTEMPTS, 2):
            area = height * width * (self.min_area + area_u * (self.max_area - self.min_area))
            log_low, log_high = math.log(self.min_aspect), math.log(self.max_aspect)
            aspect = math.exp(log_low + aspect_u * (log_high - log_low))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return Box(int(y * (height - h + 1)), int(x * (width - w + 1)), h, w)
        return self._fallback(height, width)

    def _fallback(self, height: int, width: int) -> Box:
        aspect = min(max(width / height, self.min_aspect), self.max_aspect)
        w = min(width, max(1, round(height * aspect)))
        h = min(height, max(1, round(width / aspect)))
        return Box((height - h) // 2, (width - w) // 2, h, w)

    def flip_probability(self) -> float:
        """As configured."""
        return self.flip


class PadCropFlip(Recipe):
    """Zero-pad, crop back to the image's size, flip: the CIFAR augmentation."""

    pad: Annotated[float, Field(ge=0, le=1)] = 0.125
    """Padding on each side as a fraction of that side (4 of 32 pixels)."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""

    def numbers(self) -> int:
        """One offset."""
        return 2

    def box(self, numbers: NDArray[np.float64], height: int, width: int) -> Box:
        """The image's own size, moved by up to the padding."""
        y, x = numbers
        pad_y, pad_x = round(self.pad * height), round(self.pad * width)
        return Box(int(y * (2 * pad_y + 1)) - pad_y, int(x * (2 * pad_x + 1)) - pad_x, height, width)

    def flip_probability(self) -> float:
        """As configured."""
        return self.flip


_ATTEMPTS = 10

RECIPES: dict[str, type[Recipe]] = {
    "plain": Plain,
    "rrc-flip": RrcFlip,
    "pad-crop-flip": PadCropFlip,
}


@dataclass(frozen=True)
class ViewParams:
    """What was drawn for n rows of one view: everything ``apply`` needs besides the image."""

    recipe: Recipe
    crop: NDArray[np.float64]
    """Uniforms [n, recipe.numbers()] that position the crop."""
    flip: NDArray[np.bool_]
    """Horizontal flip [n]."""


def draw(recipe: Recipe, seed: int, view: int, rows: NDArray[np.int64]) -> ViewParams:
    """Parameters of the given rows in one view: pure arithmetic on (seed, view, row)."""
    numbers = uniforms(seed, view, np.asarray(rows, np.int64), 1 + recipe.numbers())
    return ViewParams(recipe, numbers[:, 1:], numbers[:, 0] < recipe.flip_probability())


def named(recipe: Recipe) -> NamedConfiguration:
    """The recipe as it stands in a manifest."""
    name = next(name for name, kind in RECIPES.items() if type(recipe) is kind)
    return NamedConfiguration(name=name, configuration=recipe.model_dump(mode="json"))


def recipe_from(config: NamedConfiguration) -> Recipe:
    """The recipe a manifest names. Raises :class:`ConfigError` for an unknown name or parameter."""
    kind = RECIPES.get(config.name)
    if kind is None:
        raise ConfigError(unknown_name("recipe", config.name, RECIPES))
    try:
        return kind.model_validate(config.configuration)
    except ValidationError as error:
        known = ", ".join(kind.model_fields)
        problem = error.errors()[0]
        where = "".join(f"{part}: " for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"recipe {config.name!r}: {where}{what}; its parameters are {known or 'none'}"
        ) from error


def parse_recipe(text: str) -> Recipe:
    """A recipe written on a command line: ``rrc-flip`` or ``rrc-flip:min_area=0.25,flip=0``."""
    name, _, rest = text.partition(":")
    configuration: dict[str, str | float] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"recipe {text!r}: expected name=value, found {item!r}")
        configuration[key.strip()] = value.strip()
    return recipe_from(NamedConfiguration(name=name, configuration=dict(configuration)))
