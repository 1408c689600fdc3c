"""What is done to the pixels of a cropped view, by torchvision's functional operations."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from cache_builder.views.mixing import SHARE_UNIT, DrawnMix
from cache_builder.views.operations import OPERATIONS, DrawnOperations
from cache_builder.views.photometric import ADJUSTMENTS, DrawnJitter

_MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}
_IDENTITY = (1.0, 1.0, 1.0, 0.0)


def apply_operations(view: Tensor, drawn: DrawnOperations, index: int, interpolation: str) -> Tensor:
    """One after the other, as RandAugment and TrivialAugment do. uint8 [3, S, S]."""
    for kind, magnitude in zip(drawn.kinds[index], drawn.magnitudes[index], strict=True):
        view = _operation(view, OPERATIONS[kind].name, float(magnitude), _MODES[interpolation])
    return view


def _operation(view: Tensor, name: str, magnitude: float, interpolation: InterpolationMode) -> Tensor:
    """As torchvision's ``_apply_image_or_video_transform``, translations being fractions of the view."""
    if name in ("ShearX", "ShearY", "TranslateX", "TranslateY"):
        return _affine(view, name, magnitude, interpolation)
    changed: Tensor
    if name == "Rotate":
        changed = functional.rotate(view, angle=magnitude, interpolation=interpolation)
    elif name == "Brightness":
        changed = functional.adjust_brightness(view, 1.0 + magnitude)
    elif name == "Color":
        changed = functional.adjust_saturation(view, 1.0 + magnitude)
    elif name == "Contrast":
        changed = functional.adjust_contrast(view, 1.0 + magnitude)
    elif name == "Sharpness":
        changed = functional.adjust_sharpness(view, 1.0 + magnitude)
    elif name == "Posterize":
        changed = functional.posterize(view, bits=int(magnitude))
    elif name == "Solarize":
        changed = functional.solarize(view, threshold=255.0 * magnitude)
    elif name == "AutoContrast":
        changed = functional.autocontrast(view)
    elif name == "Equalize":
        changed = functional.equalize(view)
    else:
        changed = view
    return changed


def _affine(view: Tensor, name: str, magnitude: float, interpolation: InterpolationMode) -> Tensor:
    height, width = view.shape[-2:]
    # torchvision's shear takes an angle and is told its arc tangent, about the corner as in AutoAugment.
    angle = math.degrees(math.atan(magnitude))
    shear = {"ShearX": [angle, 0.0], "ShearY": [0.0, angle]}.get(name)
    translate = {"TranslateX": [int(magnitude * width), 0], "TranslateY": [0, int(magnitude * height)]}
    moved: Tensor = functional.affine(
        view,
        angle=0.0,
        translate=translate.get(name, [0, 0]),
        scale=1.0,
        shear=shear or [0.0, 0.0],
        interpolation=interpolation,
        center=[0, 0] if shear else None,
    )
    return moved


_ADJUST = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}


def apply_jitter(view: Tensor, drawn: DrawnJitter, index: int) -> Tensor:
    """The four adjustments in their drawn order; one that changes nothing is left out."""
    for kind in drawn.order[index]:
        factor = float(drawn.factors[index, kind])
        if factor != _IDENTITY[kind]:
            view = _ADJUST[ADJUSTMENTS[kind]](view, factor)
    return view


def erased(view: Tensor, box: NDArray[np.float64], colour: tuple[int, int, int]) -> Tensor:
    """The view with a box of fractions painted over."""
    top, left, bottom, right = _pixels(box, view)
    if bottom <= top or right <= left:
        return view
    painted = view.clone()
    painted[:, top:bottom, left:right] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return painted


def mixed(own: Tensor, partner: Tensor, drawn: DrawnMix, index: int) -> Tensor:
    """The mixed picture of two rendered views uint8 [3, S, S]; halves are rounded up."""
    if not drawn.is_cut[index]:
        share = round(float(drawn.share[index]) * SHARE_UNIT)
        total = own.int() * share + partner.int() * (SHARE_UNIT - share)
        return ((total + SHARE_UNIT // 2) >> 16).to(torch.uint8)
    top, left, bottom, right = _pixels(drawn.cut[index], own)
    picture = own.clone()
    picture[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    return picture


def _pixels(box: NDArray[np.float64], view: Tensor) -> tuple[int, int, int, int]:
    """Edges (top, left, bottom, right) at this size: rounded, halves to the even one."""
    height, width = view.shape[-2:]
    top, left, bottom, right = (float(edge) for edge in box)
    return round(top * height), round(left * width), round(bottom * height), round(right * width)
