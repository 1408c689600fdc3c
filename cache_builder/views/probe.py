"""The render probe: a few stored pictures that tell whether this machine renders what the teacher saw."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets import ImageSource
from cache_builder.format.manifest import Manifest, ProbeSection, TeacherSection, ViewsSection
from cache_builder.views.apply import render
from cache_builder.views.philox import uniforms
from cache_builder.views.recipes import recipe_from

PROBE_PAIRS = 4
# Mean absolute difference in levels of 255. Other JPEG decoders and SIMD resizers stay below one level;
# a missing antialias filter, a swapped colour order or a crop moved by some pixels gives five and more.
PROBE_TOLERANCE = 2.0
_PROBE_STREAM = 2


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


def probe_pairs(samples: int, views: ViewsSection) -> tuple[tuple[int, int], ...]:
    """The seeded (view, row) pairs of the probe."""
    count = min(PROBE_PAIRS, samples)
    rows = uniforms(views.seed, 0, np.arange(count), 1, _PROBE_STREAM)[:, 0] * samples
    return tuple((index % views.count, int(row)) for index, row in enumerate(rows))


def render_probe(
    source: ImageSource, pairs: tuple[tuple[int, int], ...], views: ViewsSection, teacher: TeacherSection
) -> tuple[ProbeSection, NDArray[np.uint8]]:
    """Render the pairs: the manifest's section and pixels uint8 [pairs, 3, size, size]."""
    pixels = np.stack([_render(source, view, row, row, views, teacher) for view, row in pairs])
    libraries = {name: version(name) for name in ("torchvision", "pillow")}
    return ProbeSection(pairs=pairs, libraries=libraries, tolerance=PROBE_TOLERANCE), pixels


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
