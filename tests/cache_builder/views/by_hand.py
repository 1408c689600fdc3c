"""A mixed view put together from its two parts, without the code that does it for caches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cache_builder.views import Recipe, draw
from cache_builder.views.apply import apply_unmixed


def rendered(
    recipe: Recipe,
    seed: int,
    view: int,
    row: int,
    size: int,
    samples: int,
    image: Callable[[int], Tensor],
    unreadable: tuple[int, ...] = (),
) -> Tensor:
    """uint8 [3, size, size], bilinear; ``image`` gives that of a row."""
    params = draw(recipe, seed, view, np.array([row]), samples)
    own = apply_unmixed(image(row), params, 0, size, "bilinear")
    partner = params.partner_of(0)
    if partner is None or params.mix is None or partner in unreadable:
        return own
    theirs = draw(recipe, seed, view, np.array([partner]), samples)
    other = apply_unmixed(image(partner), theirs, 0, size, "bilinear")
    if params.mix.is_cut[0]:
        top, left, bottom, right = (round(float(edge) * size) for edge in params.mix.cut[0])
        own[:, top:bottom, left:right] = other[:, top:bottom, left:right]
        return own
    share = float(params.mix.share[0])
    return torch.floor(own.double() * share + other.double() * (1 - share) + 0.5).to(torch.uint8)
