from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from cache_builder.views import RECIPES, ViewParams, draw, parse_recipe
from cache_builder.views.recipes import Augment, PadCropFlip, RrcFlip

STRONG = [name for name, kind in RECIPES.items() if kind().is_strong(1)]
EVERYTHING = (
    "augment:randaugment.num_ops=2,jitter.hue=0.2,erase.probability=0.5,"
    "mix.mixup_alpha=0.4,mix.cutmix_alpha=1"
)
ROWS = np.array([0, 5, 999, 17])


def flat(params: ViewParams) -> list[object]:
    """Everything that was drawn, as JSON."""
    parts = [params.crop, params.flip, params.erase]
    for group in (params.operations, params.jitter, params.mix):
        parts += [] if group is None else list(vars(group).values())
    return [None if part is None else part.tolist() for part in parts]


@pytest.mark.parametrize("text", [*STRONG, EVERYTHING])
def test_rows_in_any_order_and_batch(text: str) -> None:
    recipe = parse_recipe(text)
    whole = draw(recipe, 5, 1, ROWS, samples=1000)
    backward = draw(recipe, 5, 1, ROWS[::-1], samples=1000)
    for index in range(len(ROWS)):
        alone = draw(recipe, 5, 1, ROWS[index : index + 1], samples=1000)
        for part, one, back in zip(flat(whole), flat(alone), flat(backward), strict=True):
            if part is not None:
                assert part[index] == one[0] == back[len(ROWS) - 1 - index]  # type: ignore[index]


def test_another_process_draws_the_same() -> None:
    program = (
        "import json, numpy as np; from cache_builder.views import draw, parse_recipe; "
        "from tests.cache_builder.views.test_drawing import flat; "
        f"p = draw(parse_recipe({EVERYTHING!r}), 2**64 - 1, 3, np.array({ROWS.tolist()}), samples=1000); "
        "print(json.dumps(flat(p)))"
    )
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here = draw(parse_recipe(EVERYTHING), 2**64 - 1, 3, ROWS, samples=1000)
    assert json.loads(asked.stdout) == flat(here)


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("base", ["rrc-flip", "pad-crop-flip"])
def test_view_0_is_the_base_alone_and_other_views_crop_as_it_does(name: str, base: str) -> None:
    recipe = parse_recipe(f"{name}:base={base}")
    for view in range(3):
        ours, plain = draw(recipe, 5, view, ROWS, samples=1000), draw(RECIPES[base](), 5, view, ROWS)
        np.testing.assert_array_equal(ours.crop, plain.crop)
        np.testing.assert_array_equal(ours.flip, plain.flip)
        assert recipe.box(ours.crop[0], 300, 400) == RECIPES[base]().box(plain.crop[0], 300, 400)
    ordinary = draw(recipe, 5, 0, ROWS)
    assert (ordinary.operations, ordinary.jitter, ordinary.erase, ordinary.mix) == (None,) * 4


def test_strong_views() -> None:
    every, odd = parse_recipe("randaugment"), parse_recipe("randaugment:strong_views=odd")
    assert [every.is_strong(view) for view in range(6)] == [False, True, True, True, True, True]
    assert [odd.is_strong(view) for view in range(6)] == [False, True] * 3
    assert draw(odd, 1, 2, ROWS).operations is None
    assert draw(every, 1, 2, ROWS).operations is not None
    assert [parse_recipe("mixup:strong_views=odd").mixes(view) for view in range(4)] == [False, True] * 2
    assert not any(RrcFlip().is_strong(view) or PadCropFlip().mixes(view) for view in range(3))


def test_how_many_views_are_needed() -> None:
    assert [parse_recipe(text).min_views() for text in ("rrc-flip", "augment", "mixup")] == [1, 1, 2]


def test_uses_do_not_disturb_each_other() -> None:
    """What is drawn for one part does not depend on which other parts there are."""
    everything = draw(parse_recipe(EVERYTHING), 5, 1, ROWS, samples=1000)
    jitter = draw(parse_recipe("color-jitter:hue=0.2"), 5, 1, ROWS)
    operations = draw(parse_recipe("randaugment"), 5, 1, ROWS)
    assert everything.jitter is not None
    assert jitter.jitter is not None
    assert everything.operations is not None
    assert operations.operations is not None
    np.testing.assert_array_equal(everything.jitter.factors, jitter.jitter.factors)
    np.testing.assert_array_equal(everything.operations.kinds, operations.operations.kinds)


def test_mixing_needs_the_number_of_samples() -> None:
    with pytest.raises(ValueError, match="samples=N"):
        draw(parse_recipe("mixup"), 5, 1, ROWS)
    assert draw(parse_recipe("mixup"), 5, 0, ROWS).partner_of(0) is None


def test_described() -> None:
    params = draw(parse_recipe(EVERYTHING), 5, 1, ROWS, samples=1000)
    said = ["; ".join(params.described(index)) for index in range(len(ROWS))]
    for text in said:
        assert "mirrored" in text
        assert "hue" in text
        assert "row" in text
    alone = draw(Augment(), 5, 1, ROWS).described(0)
    assert alone in (["mirrored"], ["not mirrored"])
