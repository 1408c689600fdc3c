"""Whole views, mixed ones included, against their parts put together here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cache_builder.views import RECIPES, draw, kernels, parse_recipe
from cache_builder.views.apply import apply, apply_unmixed, render, render_views
from tests.cache_builder.photographs import cut
from tests.cache_builder.views import by_hand

SAMPLES, SEED = 11, 7
IMAGES = [torch.from_numpy(cut(index, 60 + index, 80)).permute(2, 0, 1) for index in range(SAMPLES)]
MIXING = ["mixup", "cutmix", "augment:mix.mixup_alpha=1,mix.cutmix_alpha=1,erase.probability=1"]
STRONG = [*(name for name, kind in RECIPES.items() if kind().is_strong(1)), *MIXING[2:]]


class Reader:
    """Keeps book of what is read."""

    def __init__(self, *unreadable: int) -> None:
        self.rows: list[int] = []
        self._unreadable = unreadable

    def __call__(self, row: int) -> Tensor | None:
        self.rows.append(row)
        return None if row in self._unreadable else IMAGES[row]


def mixed_by_hand(text: str, view: int, row: int, size: int) -> Tensor:
    return by_hand.rendered(parse_recipe(text), SEED, view, row, size, SAMPLES, IMAGES.__getitem__)


@pytest.mark.parametrize("text", MIXING)
def test_mixed_views_are_their_parts_put_together(text: str) -> None:
    wanted = [(row, view) for view in (1, 2, 0) for row in (3, 0, 10, 4, 7, 1, 2, 5, 6, 8, 9)]
    rendered = render_views(parse_recipe(text), SEED, wanted, Reader(), 24, "bilinear", SAMPLES)
    for (row, view), found in zip(wanted, rendered, strict=True):
        assert found.image is not None
        assert torch.equal(found.image, mixed_by_hand(text, view, row, 24)), (row, view)
    alone = sum(found.partner == row for (row, _), found in zip(wanted, rendered, strict=True))
    assert alone == SAMPLES + 2, "view 0, and of 11 rows one in each mixed view"


@pytest.mark.parametrize("text", STRONG)
def test_a_batch_gives_what_one_at_a_time_gives(text: str) -> None:
    recipe = parse_recipe(text)
    wanted = [(row, view) for row in (3, 0, 10) for view in (1, 2)]
    together = render_views(recipe, SEED, wanted, Reader(), 20, "bilinear", SAMPLES)
    for (row, view), found in zip(wanted, together, strict=True):
        reader = Reader()
        alone = render(IMAGES[row], recipe, SEED, view, row, 20, "bilinear", samples=SAMPLES, read=reader)
        assert found.image is not None
        assert torch.equal(alone, found.image)
        assert reader.rows == ([] if found.partner == row else [found.partner])


@pytest.mark.parametrize("text", STRONG)
def test_strong_views_differ_from_the_base(text: str) -> None:
    """At least most of them: RandAugment may draw two operations that do nothing."""
    recipe, base = parse_recipe(text), RECIPES["rrc-flip"]()
    wanted = [(row, view) for row in range(SAMPLES) for view in (1, 2)]
    strong = render_views(recipe, SEED, wanted, Reader(), 20, "bilinear", SAMPLES)
    plain = render_views(base, SEED, wanted, Reader(), 20, "bilinear", SAMPLES)
    differ = [not torch.equal(a.image, b.image) for a, b in zip(strong, plain, strict=True)]  # type: ignore[arg-type]
    assert np.mean(differ) > (0.1 if text == "rrc-erase" else 0.6)


def test_every_image_is_read_once() -> None:
    reader = Reader()
    rows = list(range(SAMPLES))
    render_views(parse_recipe("mixup"), SEED, [(row, 1) for row in rows], reader, 8, "nearest", SAMPLES)
    assert reader.rows == rows


def test_partners_outside_the_batch_are_read_too() -> None:
    reader = Reader()
    (found,) = render_views(parse_recipe("mixup"), SEED, [(3, 1)], reader, 8, "nearest", SAMPLES)
    assert reader.rows == [3, found.partner]


def test_a_row_whose_partner_cannot_be_read_is_not_mixed() -> None:
    recipe = parse_recipe("mixup")
    partner = draw(recipe, SEED, 1, np.array([3]), SAMPLES).partner_of(0)
    assert partner is not None
    mine, theirs = render_views(recipe, SEED, [(3, 1), (partner, 1)], Reader(partner), 8, "nearest", SAMPLES)
    assert theirs.image is None
    params = draw(recipe, SEED, 1, np.array([3]), SAMPLES)
    assert mine.image is not None
    assert torch.equal(mine.image, apply_unmixed(IMAGES[3], params, 0, 8, "nearest"))
    assert (mine.partner, mine.share) == (3, 1.0)


@pytest.mark.parametrize("text", MIXING)
@pytest.mark.parametrize("size", [16, 23])
def test_teacher_and_student_of_other_sizes_see_the_same_mixture(text: str, size: int) -> None:
    recipe, wanted = parse_recipe(text), [(row, 1) for row in range(SAMPLES)]
    large, small = (
        render_views(recipe, SEED, wanted, Reader(), side, "bilinear", SAMPLES) for side in (4 * size, size)
    )
    for one, other in zip(large, small, strict=True):
        assert (one.partner, one.share) == (other.partner, other.share)
        assert one.image is not None
        assert other.image is not None
        shrunk = torch.nn.functional.interpolate(one.image[None].float(), (size, size), mode="area")[0]
        # Edges of boxes are rounded to pixels, so that they may differ by one at either size.
        assert (shrunk - other.image.float()).abs().mean() < 12


def test_a_mixed_view_is_not_rendered_without_its_partner() -> None:
    recipe = parse_recipe("mixup")
    params = draw(recipe, SEED, 1, np.array([3]), SAMPLES)
    with pytest.raises(ValueError, match="mixed with that of row"):
        apply(IMAGES[3], params, 0, 8, "nearest")
    with pytest.raises(ValueError, match="read="):
        render(IMAGES[3], recipe, SEED, 1, 3, 8, "nearest", samples=SAMPLES)


def test_kernels_leave_what_they_are_given() -> None:
    before = IMAGES[0][:, :8, :8].clone()
    kernels.erased(before, np.array([0.0, 0.0, 1.0, 1.0]), (9, 9, 9))
    assert torch.equal(before, IMAGES[0][:, :8, :8])
