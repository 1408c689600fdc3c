from __future__ import annotations

import shutil
from collections.abc import Sequence, Sized
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cache_builder.datasets import LimitedSource, open_source
from cache_builder.format.errors import DataError
from cache_builder.format.manifest import ImageInput, Manifest, ViewsSection
from cache_builder.views import draw, named, parse_recipe
from cache_builder.views.apply import render
from cache_builder.views.probe import PROBE_PAIRS, PROBE_TOLERANCE, probe_differences, render_probe
from cache_builder.views.recipes import RrcFlip
from cache_builder.views.replay import Replay
from tests.caches import synthetic_manifest

VIEWS = ViewsSection(count=3, recipe=named(RrcFlip()), seed=9)
SEEN = ImageInput(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")


def replay(source: Sized, views: ViewsSection = VIEWS) -> Replay:
    return Replay.of_sections(views, SEEN, len(source))


def probed(folder: Path, views: ViewsSection = VIEWS) -> tuple[Manifest, NDArray[np.uint8], Sequence[str]]:
    """A manifest, its probe and the sample ids in row order."""
    source = open_source(f"imagefolder:{folder}")
    section, pixels = render_probe(source, replay(source, views))
    manifest = synthetic_manifest(rows=len(source)).model_copy(
        update={"probe": section, "views": views, "input": SEEN}
    )
    return manifest, pixels, source.ids


def test_pictures_are_those_the_teacher_sees(photos: Path) -> None:
    source = open_source(f"imagefolder:{photos}")
    section, pixels = render_probe(source, replay(source, VIEWS))
    assert pixels.shape == (PROBE_PAIRS, 3, 32, 32)
    assert len(set(section.pairs)) == PROBE_PAIRS
    for (view, row), stored in zip(section.pairs, pixels, strict=True):
        seen = render(source.read(row).value, RrcFlip(), 9, view, row, 32, "bilinear")
        np.testing.assert_array_equal(seen.numpy(), stored)


def test_the_same_machine_differs_by_nothing(photos: Path) -> None:
    manifest, pixels, ids = probed(photos)
    found = probe_differences(manifest, pixels, open_source(f"imagefolder:{photos}"), ids)
    assert [difference.difference for difference in found] == [0] * PROBE_PAIRS


def test_rows_may_stand_elsewhere(photos: Path, tmp_path: Path) -> None:
    """A student's data set may have more samples: ids decide, and the row of the cache draws the view."""
    manifest, pixels, ids = probed(photos)
    more = Path(shutil.copytree(photos, tmp_path / "more"))
    Image.new("RGB", (40, 40)).save(more / "class_00" / "aaa.png")
    found = probe_differences(manifest, pixels, open_source(f"imagefolder:{more}"), ids)
    assert [difference.difference for difference in found] == [0] * PROBE_PAIRS


def test_samples_that_are_not_there_are_left_out(photos: Path, tmp_path: Path) -> None:
    manifest, pixels, ids = probed(photos)
    fewer = Path(shutil.copytree(photos, tmp_path / "fewer"))
    rows = [row for _, row in manifest.probe.pairs]
    (fewer / ids[rows[1]]).unlink()
    found = probe_differences(manifest, pixels, open_source(f"imagefolder:{fewer}"), ids)
    assert [difference.row for difference in found] == [rows[0], rows[2], rows[3]]


@pytest.mark.parametrize("change", ["colours", "no antialias", "moved"])
def test_another_rendering_is_beyond_the_tolerance(photos: Path, change: str) -> None:
    manifest, pixels, ids = probed(photos)
    if change == "colours":
        pixels = pixels[:, ::-1]
    elif change == "no antialias":
        source = open_source(f"imagefolder:{photos}")
        images = [(view, row, source.read(row).value) for view, row in manifest.probe.pairs]
        aliased = [render(image, RrcFlip(), 9, view, row, 32, "nearest") for view, row, image in images]
        pixels = np.stack([picture.numpy() for picture in aliased])
    else:
        pixels = np.roll(pixels, 3, axis=3)
    found = probe_differences(manifest, pixels, open_source(f"imagefolder:{photos}"), ids)
    assert max(difference.difference for difference in found) > PROBE_TOLERANCE


def test_unreadable_samples(own_photos: Path) -> None:
    for path in sorted(own_photos.rglob("*.jpg"))[::2]:
        path.write_bytes(b"")
    source = open_source(f"imagefolder:{own_photos}")
    with pytest.raises(DataError, match="cannot read image"):
        render_probe(source, replay(source, VIEWS))
    section, pixels = render_probe(source, replay(source, VIEWS), skip_unreadable=True)
    assert len(section.pairs) == len(pixels) == PROBE_PAIRS


def test_nothing_readable(own_photos: Path) -> None:
    for path in own_photos.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of"):
        render_probe(open_source(f"imagefolder:{own_photos}"), replay(range(80), VIEWS), skip_unreadable=True)


class TestStrongViews:
    @pytest.mark.parametrize("text", ["mixup", "cutmix:strong_views=odd", "randaugment", "rrc-erase"])
    @pytest.mark.parametrize("count", [2, 5])
    def test_are_among_the_pictures(self, photos: Path, text: str, count: int) -> None:
        recipe = parse_recipe(text)
        views = ViewsSection(count=count, recipe=named(recipe), seed=9)
        manifest, pixels, _ = probed(photos, views)
        assert len(pixels) == PROBE_PAIRS
        assert {recipe.is_strong(view) for view, _ in manifest.probe.pairs} == {True, False}

    def test_of_a_single_sample(self, photos: Path) -> None:
        source = LimitedSource(open_source(f"imagefolder:{photos}"), 1)
        views = ViewsSection(count=2, recipe=named(parse_recipe("trivialaugment")), seed=9)
        assert render_probe(source, replay(source, views))[0].pairs == ((0, 0), (1, 0))

    def test_mixed_pictures_are_rendered_again_and_compared(self, photos: Path) -> None:
        views = ViewsSection(count=3, recipe=named(parse_recipe("mixup:alpha=4")), seed=9)
        manifest, pixels, ids = probed(photos, views)
        source = open_source(f"imagefolder:{photos}")
        found = probe_differences(manifest, pixels, source, ids)
        assert [difference.difference for difference in found] == [0] * PROBE_PAIRS
        drifted = probe_differences(manifest, np.roll(pixels, 3, axis=3), source, ids)
        assert min(difference.difference for difference in drifted) > PROBE_TOLERANCE

    def test_another_partner_is_beyond_the_tolerance(self, photos: Path, tmp_path: Path) -> None:
        """A partner's picture that changed is another target, however right the sample's own is."""
        views = ViewsSection(count=2, recipe=named(parse_recipe("mixup:alpha=100")), seed=9)
        manifest, pixels, ids = probed(photos, views)
        view, row = next(pair for pair in manifest.probe.pairs if pair[0] == 1)
        partner = draw(parse_recipe("mixup"), 9, view, np.array([row]), len(ids)).partner_of(0)
        assert partner is not None
        changed = Path(shutil.copytree(photos, tmp_path / "changed"))
        Image.new("RGB", (40, 40), (255, 0, 255)).save(changed / ids[partner])
        found = probe_differences(manifest, pixels, open_source(f"imagefolder:{changed}"), ids)
        (other,) = [difference for difference in found if difference.row == row]
        assert other.difference > PROBE_TOLERANCE

    def test_pictures_whose_partner_is_not_there_are_left_out(self, photos: Path, tmp_path: Path) -> None:
        views = ViewsSection(count=2, recipe=named(parse_recipe("mixup")), seed=9)
        manifest, pixels, ids = probed(photos, views)
        view, row = next(pair for pair in manifest.probe.pairs if pair[0] == 1)
        partner = draw(parse_recipe("mixup"), 9, view, np.array([row]), len(ids)).partner_of(0)
        assert partner is not None
        fewer = Path(shutil.copytree(photos, tmp_path / "fewer"))
        (fewer / ids[partner]).unlink()
        found = probe_differences(manifest, pixels, open_source(f"imagefolder:{fewer}"), ids)
        assert (view, row) not in [(difference.view, difference.row) for difference in found]
        assert found
