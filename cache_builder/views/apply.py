"""Rendering a drawn view with torchvision's functional operations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from cache_builder.views.recipes import Recipe, ViewParams, draw

_MODES = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


def apply(image: Tensor, params: ViewParams, index: int, size: int, interpolation: str) -> Tensor:
    """Render one drawn view.

    ``image``: uint8 [3, H, W]; ``index``: position of the row in ``params``; returns uint8 [3, size, size].
    The crop is a function of (params, H, W) alone, so teacher and student may use different sizes.
    """
    height, width = image.shape[-2:]
    box = params.recipe.box(params.crop[index], height, width)
    view: Tensor = functional.resized_crop(
        image,
        top=box.top,
        left=box.left,
        height=box.height,
        width=box.width,
        size=[size, size],
        interpolation=_MODES[interpolation],
        antialias=True,
    )
    if params.flip[index]:
        view = functional.horizontal_flip(view)
    return view


def render(
    image: Tensor, recipe: Recipe, seed: int, view: int, row: int, size: int, interpolation: str
) -> Tensor:
    """Draw and apply one (view, row): uint8 [3, H, W] to uint8 [3, size, size]."""
    params = draw(recipe, seed, view, np.array([row]))
    return apply(image, params, 0, size, interpolation)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [B, 3, S, S] on any device to float32 ``(x / 255 - mean) / std``."""
    shape = (1, 3, 1, 1)
    centre = torch.tensor(mean, device=images.device).view(shape)
    scale = torch.tensor(std, device=images.device).view(shape)
    return (images.float() / 255 - centre) / scale
