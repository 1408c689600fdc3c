"""The render probe: a few stored pictures that tell whether this machine renders what the teacher saw."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets import ImageSource
from cache_builder.format.errors import DataError
from cache_builder.format.manifest import Manifest, ProbeSection, TeacherSection, ViewsSection
from cache_builder.views.apply import render
from cache_builder.views.philox import uniforms
from cache_builder.views.recipes import recipe_from

PROBE_PAIRS = 4
# Mean absolute difference in levels of 255. Other JPEG decoders and SIMD resizers stay below one level;
# a missing antialias filter, a swapped colour order or a crop moved by some pixels gives five and more.
PROBE_TOLERANCE = 2.0
_PROBE_STREAM = 2
_PROBE_CANDIDATES = 64


@dataclass(frozen=True)
class ProbeDifference:
    """One probe picture rendered again here."""

    view: int
    row: int
    sample_id: str
    difference: float
    """Mean absolute pixel difference, in levels of 255."""
    stored: NDArray[np.uint8]
    rendered: NDArray[np.uint8]


def render_probe(
    source: ImageSource, views: ViewsSection, teacher: TeacherSection, skip_unreadable: bool = False
) -> tuple[ProbeSection, NDArray[np.uint8]]:
    """Render a few seeded pairs: the manifest's section and pixels uint8 [pairs, 3, size, size]."""
    pairs: list[tuple[int, int]] = []
    pixels: list[NDArray[np.uint8]] = []
    draws = uniforms(views.seed, 0, np.arange(_PROBE_CANDIDATES), 1, _PROBE_STREAM)[:, 0]
    for index, row in enumerate((draws * len(source)).astype(int)):
        view = index % views.count
        try:
            pixels.append(_render(source, view, int(row), int(row), views, teacher))
        except DataError:
            if not skip_unreadable:
                raise
            continue
        pairs.append((view, int(row)))
        if len(pairs) == min(PROBE_PAIRS, len(source)):
            break
    if not pixels:
        raise DataError(
            f"{source.spec}: none of {_PROBE_CANDIDATES} samples could be read for the render probe"
        )
    libraries = {name: version(name) for name in ("torchvision", "pillow")}
    section = ProbeSection(pairs=tuple(pairs), libraries=libraries, tolerance=PROBE_TOLERANCE)
    return section, np.stack(pixels)


def probe_differences(
    manifest: Manifest, pixels: NDArray[np.uint8], source: ImageSource, cache_ids: list[str]
) -> list[ProbeDifference]:
    """Render the probe again from a data set; samples the data set lacks are left out.

    ``pixels``: uint8 [pairs, 3, S, S] as stored; ``cache_ids``: the sample id of each pair, in the cache.
    """
    wanted = set(cache_ids)
    here = {sample_id: index for index, sample_id in enumerate(source.ids) if sample_id in wanted}
    found = []
    for (view, row), sample_id, stored in zip(manifest.probe.pairs, cache_ids, pixels, strict=True):
        if sample_id not in here:
            continue
        rendered = _render(source, view, row, here[sample_id], manifest.views, manifest.teacher)
        difference = float(np.abs(rendered.astype(np.int16) - stored).mean())
        found.append(ProbeDifference(view, row, sample_id, difference, stored, rendered))
    return found


def _render(
    source: ImageSource, view: int, row: int, index: int, views: ViewsSection, teacher: TeacherSection
) -> NDArray[np.uint8]:
    image = source.read(index).image
    recipe = recipe_from(views.recipe)
    picture = render(image, recipe, views.seed, view, row, teacher.input_size, teacher.interpolation)
    pixels: NDArray[np.uint8] = picture.numpy()
    return pixels
