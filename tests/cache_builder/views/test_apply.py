from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from cache_builder.views import RECIPES, draw
from cache_builder.views.apply import apply, render
from cache_builder.views.recipes import PadCropFlip, Plain, RrcFlip
from tests.cache_builder.photographs import cut

PHOTO = torch.from_numpy(cut(3, 90, 130)).permute(2, 0, 1)
ROWS = np.arange(12)


def difference(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference in levels."""
    return float((first.float() - second.float()).abs().mean())


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_rrc_flip_is_a_crop_a_resize_and_a_flip(interpolation: str) -> None:
    params = draw(RrcFlip(), 1, 0, ROWS)
    assert {True, False} == set(params.flip.tolist())
    for index in range(len(ROWS)):
        top, left, height, width = params.recipe.box(params.crop[index], *PHOTO.shape[1:])
        piece = PHOTO[:, top : top + height, left : left + width]
        wanted = functional.resize(
            piece, [32, 32], interpolation=v2.InterpolationMode[interpolation.upper()], antialias=True
        )
        wanted = wanted.flip(2) if params.flip[index] else wanted
        assert torch.equal(apply(PHOTO, params, index, 32, interpolation), wanted)


@pytest.mark.parametrize(("interpolation", "resample"), [("bilinear", 2), ("bicubic", 3)])
def test_within_a_level_of_pillows_resize(interpolation: str, resample: int) -> None:
    params = draw(RrcFlip(flip=0), 1, 0, ROWS)
    for index in range(len(ROWS)):
        top, left, height, width = params.recipe.box(params.crop[index], *PHOTO.shape[1:])
        piece = Image.fromarray(PHOTO.permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
        wanted = torch.from_numpy(np.array(piece.resize((32, 32), resample))).permute(2, 0, 1)
        assert difference(apply(PHOTO, params, index, 32, interpolation), wanted) < 1


def test_pad_crop_flip_is_torchvisions_padded_crop() -> None:
    square = PHOTO[:, :32, :32]
    params = draw(PadCropFlip(), 2, 0, ROWS)
    padded = functional.pad(square, [4])
    for index in range(len(ROWS)):
        box = params.recipe.box(params.crop[index], 32, 32)
        wanted = padded[:, box.top + 4 : box.top + 36, box.left + 4 : box.left + 36]
        wanted = wanted.flip(2) if params.flip[index] else wanted
        assert torch.equal(apply(square, params, index, 32, "bilinear"), wanted)


def test_plain_is_nearly_resize_then_centre_crop() -> None:
    """Cropping first differs only where the resampling filter reaches over the crop's edge."""
    wanted = functional.center_crop(functional.resize(PHOTO, [64], antialias=True), [56])
    assert difference(render(PHOTO, Plain(crop_fraction=0.875), 0, 0, 0, 56, "bilinear"), wanted) < 3


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (8, 8), (33, 90)])
def test_any_image_gives_the_size_asked_for(name: str, shape: tuple[int, int]) -> None:
    image = torch.full((3, *shape), 200, dtype=torch.uint8)
    for row in range(5):
        view = render(image, RECIPES[name](), 1, 0, row, 24, "bilinear")
        assert view.shape == (3, 24, 24)
        assert view.dtype == torch.uint8


@pytest.mark.parametrize("name", RECIPES)
def test_teacher_and_student_of_other_sizes_see_the_same_crop(name: str) -> None:
    recipe = RECIPES[name]()
    for row in range(8):
        large = render(PHOTO, recipe, 1, 0, row, 96, "bilinear")
        small = render(PHOTO, recipe, 1, 0, row, 48, "bilinear")
        assert difference(functional.resize(large, [48, 48], antialias=True), small) < 6


def test_another_row_view_or_seed_is_another_crop() -> None:
    pictures = [
        render(PHOTO, RrcFlip(), seed, view, row, 32, "bilinear")
        for seed, view, row in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))
    ]
    for index, picture in enumerate(pictures):
        assert all(difference(picture, other) > 6 for other in pictures[:index])


def test_memory_layout_does_not_matter() -> None:
    """Data sets give [H, W, 3] memory seen as [3, H, W]."""
    contiguous = PHOTO.contiguous()
    assert not PHOTO.is_contiguous()
    for row in range(6):
        first = render(PHOTO, RrcFlip(), 1, 0, row, 32, "bilinear")
        assert torch.equal(first, render(contiguous, RrcFlip(), 1, 0, row, 32, "bilinear"))


def test_the_source_image_is_left_alone() -> None:
    before = PHOTO.clone()
    render(PHOTO, PadCropFlip(flip=1, pad=0), 1, 0, 0, 130, "bilinear").fill_(0)
    assert torch.equal(PHOTO, before)


@pytest.mark.parametrize("name", ["Rendered", "normalise", "render", "render_views"])
def test_programs_of_users_find_it_in_the_package(name: str) -> None:
    import cache_builder.tensors.normalise as normalising
    import cache_builder.views as views
    import cache_builder.views.apply as applying

    home = normalising if name == "normalise" else applying
    assert getattr(views, name) is getattr(home, name)
