"""RandAugment and TrivialAugment: which operations a view gets, and how strong.

The fourteen operations, their magnitudes over 31 bins and their order are torchvision's. Translations are
fractions of the view, so that teacher and student may render at different sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cache_builder.format.frozen import Frozen
from cache_builder.views.philox import Stream, uniforms

BINS = 31
"""Levels 0 to 30 of every magnitude."""

OperationInterpolation = Literal["nearest", "bilinear"]


class Operation(NamedTuple):
    """One of the fourteen: how far its magnitude goes at level 30, and whether it has a sign."""

    name: str
    narrow: float
    """Of RandAugment."""
    wide: float
    """Of TrivialAugment Wide."""
    signed: bool = True


# A translation of the wide space is 32 pixels in torchvision, whatever the view's size: 32 of 224 here.
OPERATIONS = (
    Operation("Identity", 0.0, 0.0, signed=False),
    Operation("ShearX", 0.3, 0.99),
    Operation("ShearY", 0.3, 0.99),
    Operation("TranslateX", 150 / 331, 32 / 224),
    Operation("TranslateY", 150 / 331, 32 / 224),
    Operation("Rotate", 30.0, 135.0),
    Operation("Brightness", 0.9, 0.99),
    Operation("Color", 0.9, 0.99),
    Operation("Contrast", 0.9, 0.99),
    Operation("Sharpness", 0.9, 0.99),
    Operation("Posterize", 4.0, 6.0, signed=False),
    Operation("Solarize", 1.0, 1.0, signed=False),
    Operation("AutoContrast", 0.0, 0.0, signed=False),
    Operation("Equalize", 0.0, 0.0, signed=False),
)
_NAMES = [operation.name for operation in OPERATIONS]
_SIGNED = np.array([operation.signed for operation in OPERATIONS])
_NARROW = np.array([operation.narrow for operation in OPERATIONS])
_WIDE = np.array([operation.wide for operation in OPERATIONS])
_POSTERIZE, _SOLARIZE = _NAMES.index("Posterize"), _NAMES.index("Solarize")


@dataclass(frozen=True)
class DrawnOperations:
    """Operations of n views, one after the other."""

    kinds: NDArray[np.int8]
    """[n, operations]: positions in ``OPERATIONS``."""
    magnitudes: NDArray[np.float64]
    """[n, operations]: shear as a tangent, translation as a fraction of the view, rotation in degrees,
    brightness, colour, contrast and sharpness as what is added to a factor of 1, bits kept (posterize),
    threshold as a fraction of white (solarize); 0 for the others."""

    def described(self, index: int) -> list[str]:
        """In words, for people."""
        pairs = zip(self.kinds[index], self.magnitudes[index], strict=True)
        return [f"{_NAMES[kind]} {magnitude:.3g}" if magnitude else _NAMES[kind] for kind, magnitude in pairs]


def magnitudes(
    kinds: NDArray[np.int8],
    levels: NDArray[np.int64],
    negative: NDArray[np.bool_],
    space: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Magnitudes of operations at levels 0 to 30; ``space``: their values at level 30."""
    reach = space[kinds] * levels / (BINS - 1)
    found = np.where(_SIGNED[kinds] & negative, -reach, reach)
    found = np.where(kinds == _POSTERIZE, 8 - np.round(reach), found)
    return np.where(kinds == _SOLARIZE, 1 - reach, found)


class RandAugment(Frozen):
    """RandAugment (Cubuk et al., "RandAugment: Practical automated data augmentation", CVPR workshops 2020).

    ``num_ops`` operations, each drawn from all fourteen, all of one magnitude.
    """

    num_ops: int = Field(default=2, ge=1, le=8)
    """N, operations one after the other."""
    magnitude: int = Field(default=9, ge=0, le=BINS - 1)
    """M, level of every magnitude, 0 to 30."""
    interpolation: OperationInterpolation = "nearest"
    """Of shears, translations and rotations."""

    def draw(self, seed: int, view: int, rows: NDArray[np.int64]) -> DrawnOperations:
        """Two numbers an operation: which one, and its sign."""
        numbers = uniforms(seed, view, rows, 2 * self.num_ops, Stream.OPERATIONS)
        which, sign = np.moveaxis(numbers.reshape(len(rows), self.num_ops, 2), 2, 0)
        kinds = (which * len(OPERATIONS)).astype(np.int8)
        levels = np.full(kinds.shape, self.magnitude)
        return DrawnOperations(kinds, magnitudes(kinds, levels, sign < 0.5, _NARROW))


class TrivialAugment(Frozen):
    """TrivialAugment Wide (Müller & Hutter, "TrivialAugment: Tuning-free yet state-of-the-art", ICCV 2021).

    One operation, drawn from all fourteen, of a magnitude drawn from all 31 levels.
    """

    interpolation: OperationInterpolation = "nearest"
    """Of shears, translations and rotations."""

    def draw(self, seed: int, view: int, rows: NDArray[np.int64]) -> DrawnOperations:
        """Three numbers: which operation, its level, its sign."""
        which, level, sign = uniforms(seed, view, rows, 3, Stream.OPERATIONS).T[:, :, None]
        kinds = (which * len(OPERATIONS)).astype(np.int8)
        return DrawnOperations(kinds, magnitudes(kinds, (level * BINS).astype(np.int64), sign < 0.5, _WIDE))
