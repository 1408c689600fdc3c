"""Drawing: everything that is random about a view, as a function of (seed, view, row) alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cache_builder.views.mixing import DrawnMix
from cache_builder.views.operations import DrawnOperations
from cache_builder.views.philox import uniforms
from cache_builder.views.photometric import DrawnJitter
from cache_builder.views.recipes import Augment, Recipe


@dataclass(frozen=True)
class ViewParams:
    """What was drawn for n rows of one view: everything ``apply`` needs besides the images."""

    recipe: Recipe
    crop: NDArray[np.float64]
    """Uniforms [n, recipe.numbers()] that position the crop."""
    flip: NDArray[np.bool_]
    """Horizontal flip [n]."""
    operations: DrawnOperations | None = None
    """Of RandAugment or TrivialAugment; None = none, here and below."""
    jitter: DrawnJitter | None = None
    """Colour jitter."""
    erase: NDArray[np.float64] | None = None
    """Erased boxes [n, 4]: top, left, bottom, right as fractions of the view; zeros where there is none."""
    mix: DrawnMix | None = None
    """Partners, lambda and box."""

    def partner_of(self, index: int) -> int | None:
        """The row that the ``index``-th row is mixed with."""
        if self.mix is None or not self.mix.mixed[index]:
            return None
        return int(self.mix.partner[index])

    def described(self, index: int) -> list[str]:
        """What was drawn for a row besides the crop, in words, one line each."""
        said = ["mirrored" if self.flip[index] else "not mirrored"]
        if self.operations is not None:
            said.append("operations: " + ", ".join(self.operations.described(index)))
        if self.jitter is not None:
            said.append("jitter: " + ", ".join(self.jitter.described(index)))
        if self.erase is not None:
            top, left, bottom, right = self.erase[index]
            box = f"erased {left:.2f}-{right:.2f} x {top:.2f}-{bottom:.2f}"
            said.append(box if bottom > top else "nothing erased")
        return said + (self.mix.described(index) if self.mix is not None else [])


def draw(
    recipe: Recipe, seed: int, view: int, rows: NDArray[np.int64], samples: int | None = None
) -> ViewParams:
    """Parameters of the given rows in one view: pure arithmetic on (seed, view, row).

    ``samples``: N, rows of the cache, which a recipe that mixes needs to tell who is whose partner; raises
    :class:`ValueError` without it.
    """
    rows = np.asarray(rows, np.int64)
    numbers = uniforms(seed, view, rows, 1 + recipe.numbers())
    params = ViewParams(recipe, numbers[:, 1:], numbers[:, 0] < recipe.flip_probability())
    if not isinstance(recipe, Augment) or not recipe.is_strong(view):
        return params
    policy = recipe.randaugment or recipe.trivialaugment
    params = replace(
        params,
        operations=policy.draw(seed, view, rows) if policy else None,
        jitter=recipe.jitter.draw(seed, view, rows) if recipe.jitter else None,
        erase=recipe.erase.draw(seed, view, rows) if recipe.erase else None,
    )
    if recipe.mix is None:
        return params
    if samples is None:
        raise ValueError("this recipe mixes samples: draw() must be told how many there are (samples=N)")
    return replace(params, mix=recipe.mix.draw(seed, view, rows, samples))
