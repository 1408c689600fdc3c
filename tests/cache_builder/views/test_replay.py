"""The one object that renders recorded views: what it renders, and what it says of the views."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import xxhash
from torch import Tensor

from cache_builder.format.manifest import ViewsSection
from cache_builder.views import draw, named, parse_recipe
from cache_builder.views.pairing import Pairing
from cache_builder.views.replay import Replay
from tests.caches import synthetic_manifest

SAMPLES, SEED, SIZE = 11, 7, 24
EVERYTHING = "augment:mix.mixup_alpha=1,mix.cutmix_alpha=1,erase.probability=1"
# Taken on 2026-11-30 from the renderer of format version 2, before this object was there. "nearest",
# because the other resizers may differ by a level from one kind of processor to another.
BEFORE = {
    "plain": "700f41c70a3a8c06",
    "rrc-flip": "0df4476b9c4f11b7",
    "pad-crop-flip": "8d94712d29d028c5",
    "trivialaugment": "e4704a3e2465eab8",
    "mixup": "88189cc3e33bb714",
    "cutmix": "6b86082a9d6dbb72",
    EVERYTHING: "a0107dbad477e35b",
}


def replay(text: str, views: int = 3) -> Replay:
    recipe = parse_recipe(text)
    return Replay(recipe, SEED, min(views, recipe.max_views() or views), SAMPLES, SIZE, "nearest")


def picture(row: int) -> Tensor | None:
    if row == 5:
        return None
    y, x = np.mgrid[0 : 40 + row, 0:52]
    levels = [(3 * x + row) % 256, (5 * y + 7 * row) % 256, (x * y) % 256]
    return torch.from_numpy(np.stack(levels).astype(np.uint8))


@pytest.mark.parametrize("text", BEFORE)
def test_pixels_are_those_of_earlier_releases(text: str) -> None:
    views = replay(text)
    digest = xxhash.xxh64()
    for seen in views.batch([(row, view) for view in range(views.count) for row in (3, 0, 10, 4)], picture):
        assert seen.image is not None
        digest.update(seen.image.contiguous().numpy().tobytes())
        digest.update(repr((seen.partner, seen.share)).encode())
    assert digest.hexdigest() == BEFORE[text]


def test_a_manifest_says_everything_but_the_pictures() -> None:
    section = ViewsSection(count=3, recipe=named(parse_recipe(EVERYTHING)), seed=SEED)
    manifest = synthetic_manifest(rows=SAMPLES).model_copy(update={"views": section})
    found = Replay.of(manifest)
    assert (found.samples, found.size) == (SAMPLES, manifest.input.size)
    assert Replay.of(manifest, size=7).size == 7
    assert found.recipe == parse_recipe(EVERYTHING)


def test_what_a_worker_gets_is_equal() -> None:
    views = replay("mixup")
    assert pickle.loads(pickle.dumps(views)) == views


@pytest.mark.parametrize("text", ["mixup", "cutmix", "rrc-flip"])
def test_partners_are_those_that_are_drawn(text: str) -> None:
    views = replay(text)
    rows = np.arange(SAMPLES)
    for view in range(views.count):
        drawn = draw(views.recipe, SEED, view, rows, SAMPLES)
        partners = views.partners(view, rows)
        expected = [
            {row} if (other := drawn.partner_of(row)) is None else {row, other} for row in rows.tolist()
        ]
        assert [views.rows_of(view, row) for row in rows.tolist()] == expected
        if not views.recipe.mixes(view):
            assert partners is None
            continue
        np.testing.assert_array_equal(partners, Pairing(SEED, view, SAMPLES).partners(rows))
    assert views.mixes == (text != "rrc-flip")
