"""Rendering a drawn view with torchvision's functional operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from cache_builder.views import kernels
from cache_builder.views.drawing import ViewParams, draw
from cache_builder.views.recipes import Augment, Recipe

_MODES = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}
ReadImage = Callable[[int], Tensor | None]
"""The image of a row, uint8 [3, H, W]; None for one that cannot be read."""


class Rendered(NamedTuple):
    """One (row, view) as the teacher saw it."""

    image: Tensor | None
    """uint8 [3, size, size]; None for a row that cannot be read."""
    partner: int
    """Row it is mixed with; its own where it is not mixed."""
    share: float
    """lambda, its own part of the picture, 0 to 1; 1 where it is not mixed."""


def apply(image: Tensor, params: ViewParams, index: int, size: int, interpolation: str) -> Tensor:
    """Render one drawn view of a row that is not mixed; :class:`ValueError` for one that is.

    ``image``: uint8 [3, H, W]; ``index``: position of the row in ``params``; returns uint8 [3, size, size].
    The crop is a function of (params, H, W) alone, so teacher and student may use different sizes.
    """
    partner = params.partner_of(index)
    if partner is not None:
        raise ValueError(f"this view is mixed with that of row {partner}: render() or render_views() mixes")
    return apply_unmixed(image, params, index, size, interpolation)


def apply_unmixed(image: Tensor, params: ViewParams, index: int, size: int, interpolation: str) -> Tensor:
    """Render a row's own picture, as it is before it is mixed with a partner's."""
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
    return _strengthened(view, params, index)


def _strengthened(view: Tensor, params: ViewParams, index: int) -> Tensor:
    """The operations, the jitter and the erased box of a strong view."""
    recipe = params.recipe
    if not isinstance(recipe, Augment):
        return view
    policy = recipe.randaugment or recipe.trivialaugment
    if params.operations is not None and policy is not None:
        view = kernels.apply_operations(view, params.operations, index, policy.interpolation)
    if params.jitter is not None:
        view = kernels.apply_jitter(view, params.jitter, index)
    if params.erase is not None and recipe.erase is not None:
        view = kernels.erased(view, params.erase[index], recipe.erase.colour)
    return view


def render(
    image: Tensor,
    recipe: Recipe,
    seed: int,
    view: int,
    row: int,
    size: int,
    interpolation: str,
    *,
    samples: int | None = None,
    read: ReadImage | None = None,
) -> Tensor:
    """Draw and apply one (view, row): uint8 [3, H, W] to uint8 [3, size, size].

    A view that mixes needs ``samples`` (N) and ``read``, which gives a partner's image.
    """

    def of_row(wanted: int) -> Tensor | None:
        if wanted == row:
            return image
        if read is None:
            raise ValueError(f"this view is mixed with that of row {wanted}: render() needs read=")
        return read(wanted)

    rendered = render_views(recipe, seed, [(row, view)], of_row, size, interpolation, samples)[0].image
    assert rendered is not None  # its own image is there
    return rendered


def render_views(
    recipe: Recipe,
    seed: int,
    wanted: Sequence[tuple[int, int]],
    read: ReadImage,
    size: int,
    interpolation: str,
    samples: int | None = None,
) -> list[Rendered]:
    """Render many (row, view), in their order.

    Draws once for each view and reads each image once, whether it is asked for or a partner; a row whose
    partner cannot be read is not mixed. ``samples``: N, for recipes that mix.
    """
    places = _draw_all(recipe, seed, wanted, samples)
    own = _render_own(places, read, size, interpolation)
    return [_finished(key, places, own) for key in wanted]


@dataclass(frozen=True)
class _Place:
    """Where the parameters of a (row, view) stand."""

    params: ViewParams
    index: int


_Key = tuple[int, int]


def _draw_all(recipe: Recipe, seed: int, wanted: Sequence[_Key], samples: int | None) -> dict[_Key, _Place]:
    """Parameters of everything wanted, then of the partners that are not."""
    places: dict[_Key, _Place] = {}
    rows_of: dict[int, dict[int, None]] = {}
    for row, view in wanted:
        rows_of.setdefault(view, {})[row] = None
    for view, rows in rows_of.items():
        params = draw(recipe, seed, view, np.array(list(rows)), samples)
        places |= {(row, view): _Place(params, index) for index, row in enumerate(rows)}
        partners = dict.fromkeys(
            partner
            for index in range(len(rows))
            if (partner := params.partner_of(index)) is not None and partner not in rows
        )
        if partners:
            theirs = draw(recipe, seed, view, np.array(list(partners)), samples)
            places |= {(row, view): _Place(theirs, index) for index, row in enumerate(partners)}
    return places


def _render_own(
    places: dict[_Key, _Place], read: ReadImage, size: int, interpolation: str
) -> dict[_Key, Tensor | None]:
    """Every row's own picture in every view it is needed in, image by image."""
    views_of: dict[int, list[int]] = {}
    for row, view in places:
        views_of.setdefault(row, []).append(view)
    own: dict[_Key, Tensor | None] = {}
    for row, views in views_of.items():
        image = read(row)
        for view in views:
            place = places[row, view]
            own[row, view] = (
                None
                if image is None
                else apply_unmixed(image, place.params, place.index, size, interpolation)
            )
    return own


def _finished(key: _Key, places: dict[_Key, _Place], own: dict[_Key, Tensor | None]) -> Rendered:
    (row, view), picture, place = key, own[key], places[key]
    partner, mix = place.params.partner_of(place.index), place.params.mix
    other = None if partner is None else own[partner, view]
    if picture is None or partner is None or other is None or mix is None:
        return Rendered(picture, row, 1.0)
    mixed = kernels.mixed(picture, other, mix, place.index)
    return Rendered(mixed, partner, float(mix.share[place.index]))
