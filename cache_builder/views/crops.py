"""Crop and flip: the recipes that every view begins with."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cache_builder.format.frozen import Frozen

Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
_ATTEMPTS = 10


class Box(NamedTuple):
    """A crop in source pixels; it may reach outside the image, where pixels are black."""

    top: int
    left: int
    height: int
    width: int


class Ranged(Frozen):
    """Settings with the ends of a range of areas and of one of aspects."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for what in ("area", "aspect"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low > high:
                raise ValueError(f"min_{what} = {low:g} is more than max_{what} = {high:g}")
        return self


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

    def is_strong(self, view: int) -> bool:
        """Whether a view has more than crop and flip. View 0 never has."""
        return False

    def mixes(self, view: int) -> bool:
        """Whether samples of a view are mixed with a partner."""
        return False

    def mixes_any(self, views: int) -> bool:
        """Whether any of the first views mixes."""
        return any(self.mixes(view) for view in range(views))

    def min_views(self) -> int:
        """How many views a cache needs so that what the recipe is for happens in one of them."""
        return 1


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


class RrcFlip(Ranged, Recipe):
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
