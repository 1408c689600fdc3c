"""Colour jitter and random erasing: their settings and what is drawn for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cache_builder.format.frozen import Frozen
from cache_builder.views.crops import Fraction, Probability, Ranged
from cache_builder.views.philox import Stream, uniforms

ADJUSTMENTS = ("brightness", "contrast", "saturation", "hue")
_ATTEMPTS = 10


@dataclass(frozen=True)
class DrawnJitter:
    """Colour jitter of n views."""

    order: NDArray[np.int8]
    """[n, 4]: positions in ``ADJUSTMENTS``, in the order of application."""
    factors: NDArray[np.float64]
    """[n, 4]: in the order of ``ADJUSTMENTS``; 1, 1, 1 and 0 change nothing and are not applied."""

    def described(self, index: int) -> list[str]:
        """In words, for people."""
        kinds = [int(kind) for kind in self.order[index]]
        return [f"{ADJUSTMENTS[kind]} {self.factors[index, kind]:.3g}" for kind in kinds]


class ColorJitter(Frozen):
    """Random brightness, contrast, saturation and hue in random order, as torchvision's ``ColorJitter``."""

    brightness: Annotated[float, Field(ge=0)] = 0.4
    """b: factor from max(0, 1 - b) to 1 + b."""
    contrast: Annotated[float, Field(ge=0)] = 0.4
    """Likewise."""
    saturation: Annotated[float, Field(ge=0)] = 0.4
    """Likewise."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """h: shift from -h to h, in turns of the colour circle."""
    probability: Probability = 1.0
    """Of any jitter at all."""

    def draw(self, seed: int, view: int, rows: NDArray[np.int64]) -> DrawnJitter:
        """Nine numbers: whether, four whose ranks are the order, four factors."""
        numbers = uniforms(seed, view, rows, 9, Stream.JITTER)
        order = np.argsort(numbers[:, 1:5], axis=1, kind="stable").astype(np.int8)
        strength = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        centre = np.array([1.0, 1.0, 1.0, 0.0])
        low = np.array([*np.maximum(0.0, 1.0 - strength[:3]), -self.hue])
        factors = low + numbers[:, 5:] * (centre + strength - low)
        return DrawnJitter(order, np.where(numbers[:, :1] < self.probability, factors, centre))


class Erasing(Ranged):
    """Random erasing (Zhong et al., "Random Erasing Data Augmentation", AAAI 2020), drawn as torchvision's.

    One box, a fraction of the view in area and place, is painted over after every other operation.
    """

    probability: Probability = 0.25
    """Of an erased box."""
    min_area: Fraction = 0.02
    """Smallest area of the box, as a fraction of the view's."""
    max_area: Fraction = 0.33
    """Largest area."""
    min_aspect: Annotated[float, Field(gt=0)] = 0.3
    """Smallest height / width of the box."""
    max_aspect: Annotated[float, Field(gt=0)] = 3.3
    """Largest height / width."""
    fill: Literal["black", "mean"] = "black"
    """black = 0, what torchvision erases with before normalisation; mean = ImageNet's (124, 116, 104), what
    erasing after normalisation amounts to."""

    @property
    def colour(self) -> tuple[int, int, int]:
        """RGB of the erased pixels."""
        return (0, 0, 0) if self.fill == "black" else (124, 116, 104)

    def draw(self, seed: int, view: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Boxes [n, 4]: top, left, bottom, right as fractions of the view; zeros where nothing is erased.

        23 numbers: whether, ten attempts at (area, aspect), top and left. The first attempt that fits counts.
        """
        numbers = uniforms(seed, view, rows, 3 + 2 * _ATTEMPTS, Stream.ERASE)
        attempts = numbers[:, 1 : 1 + 2 * _ATTEMPTS].reshape(-1, _ATTEMPTS, 2)
        area = self.min_area + attempts[..., 0] * (self.max_area - self.min_area)
        low, high = math.log(self.min_aspect), math.log(self.max_aspect)
        aspect = np.exp(low + attempts[..., 1] * (high - low))
        heights, widths = np.sqrt(area * aspect), np.sqrt(area / aspect)
        fits = (heights < 1) & (widths < 1)
        first = np.argmax(fits, axis=1)
        height, width = (side[np.arange(len(rows)), first] for side in (heights, widths))
        top, left = numbers[:, -2] * (1 - height), numbers[:, -1] * (1 - width)
        boxes = np.stack([top, left, top + height, left + width], axis=1)
        erased = fits.any(axis=1) & (numbers[:, 0] < self.probability)
        return np.where(erased[:, None], boxes, 0.0)
