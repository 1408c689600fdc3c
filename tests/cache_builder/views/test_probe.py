from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_builder.datasets import open_source
from cache_builder.format.errors import DataError
from cache_builder.format.manifest import Manifest, TeacherSection, ViewsSection
from cache_builder.views import named, render
from cache_builder.views.probe import PROBE_PAIRS, PROBE_TOLERANCE, probe_differences, render_probe
from cache_builder.views.recipes import RrcFlip
from tests.caches import synthetic_manifest

VIEWS = ViewsSection(count=3, recipe=named(RrcFlip()), seed=9)
TEACHER = TeacherSection(
    spec="t", weights="w", weights_digest="0", input_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    interpolation="bilinear", precision="fp32",
)  # fmt: skip


def probed(folder: Path) -> tuple[Manifest, np.ndarray, list[str]]:  # type: ignore[type-arg]
    source = open_source(f"imagefolder:{folder}")
    section, pixels = render_probe(source, VIEWS, TEACHER)
    manifest = synthetic_manifest(rows=len(source)).model_copy(
        update={"probe": section, "views": VIEWS, "teacher": TEACHER}
    )
    return manifest, pixels, [source.ids[row] for _, row in section.pairs]


def test_pictures_are_those_the_teacher_sees(photos: Path) -> None:
    source = open_source(f"imagefolder:{photos}")
    section, pixels = render_probe(source, VIEWS, TEACHER)
    assert pixels.shape == (PROBE_PAIRS, 3, 32, 32)
    assert len(set(section.pairs)) == PROBE_PAIRS
    for (view, row), stored in zip(section.pairs, pixels, strict=True):
        seen = render(source.read(row).image, RrcFlip(), 9, view, row, 32, "bilinear")
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
    (fewer / ids[1]).unlink()
    found = probe_differences(manifest, pixels, open_source(f"imagefolder:{fewer}"), ids)
    assert [difference.sample_id for difference in found] == [ids[0], ids[2], ids[3]]


@pytest.mark.parametrize("change", ["colours", "no antialias", "moved"])
def test_another_rendering_is_beyond_the_tolerance(photos: Path, change: str) -> None:
    manifest, pixels, ids = probed(photos)
    if change == "colours":
        pixels = pixels[:, ::-1]
    elif change == "no antialias":
        source = open_source(f"imagefolder:{photos}")
        images = [(view, row, source.read(row).image) for view, row in manifest.probe.pairs]
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
        render_probe(source, VIEWS, TEACHER)
    section, pixels = render_probe(source, VIEWS, TEACHER, skip_unreadable=True)
    assert len(section.pairs) == len(pixels) == PROBE_PAIRS


def test_nothing_readable(own_photos: Path) -> None:
    for path in own_photos.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of"):
        render_probe(open_source(f"imagefolder:{own_photos}"), VIEWS, TEACHER, skip_unreadable=True)
