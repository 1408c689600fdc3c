"""The render probe: a few stored pictures that tell whether this machine renders what the teacher saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.datasets import ImageSource
from cache_builder.format.errors import DataError
from cache_builder.format.manifest import Manifest, ProbeSection, TeacherSection, ViewsSection
from cache_builder.views.apply import ReadImage, render_views
from cache_builder.views.configuration import recipe_from
from cache_builder.views.drawing import draw
from cache_builder.views.philox import Stream, uniforms
from cache_builder.views.recipes import Recipe

PROBE_PAIRS = 4
# Mean absolute difference in levels of 255. Other JPEG decoders and SIMD resizers stay below one level;
# a missing antialias filter, a swapped colour order or a crop moved by some pixels gives five and more.
PROBE_TOLERANCE = 2.0
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
    """Render a few seeded pairs: the manifest's section and pixels uint8 [pairs, 3, size, size].

    A strong view is among them where the recipe has one: operations and mixing drift too.
    """
    recipe = recipe_from(views.recipe)
    strong = {view for view in range(views.count) if recipe.is_strong(view)}
    wanted = min(PROBE_PAIRS, len(source))
    pairs: list[tuple[int, int]] = []
    pixels: list[NDArray[np.uint8]] = []
    draws = uniforms(views.seed, 0, np.arange(_PROBE_CANDIDATES), 1, Stream.PROBE)[:, 0]

    def read(row: int) -> Tensor | None:
        return _read(source, row, skip_unreadable)

    for index, row in enumerate((draws * len(source)).astype(int)):
        view = index % views.count
        picture = _render(recipe, views, teacher, view, int(row), read, len(source))
        if picture is None:
            continue
        pixels.append(picture)
        pairs.append((view, int(row)))
        if len(pairs) >= wanted and (not strong or strong & {view for view, _ in pairs}):
            break
    if not pixels:
        raise DataError(
            f"{source.spec}: none of {_PROBE_CANDIDATES} samples could be read for the render probe"
        )
    libraries = {name: version(name) for name in ("torchvision", "pillow")}
    section = ProbeSection(pairs=tuple(pairs), libraries=libraries, tolerance=PROBE_TOLERANCE)
    return section, np.stack(pixels)


def probe_differences(
    manifest: Manifest, pixels: NDArray[np.uint8], source: ImageSource, cache_ids: Sequence[str]
) -> list[ProbeDifference]:
    """Render the probe again from a data set; samples, or partners of them, that it lacks are left out.

    ``pixels``: uint8 [pairs, 3, S, S] as stored; ``cache_ids`` [N]: the cache's sample ids in row order.
    """
    if not manifest.probe.pairs:
        return []
    recipe, samples = recipe_from(manifest.views.recipe), manifest.data.samples
    rows = {row: cache_ids[row] for row in _rows_needed(manifest, recipe)}
    wanted = set(rows.values())
    here = {sample_id: index for index, sample_id in enumerate(source.ids) if sample_id in wanted}
    invalid = set(manifest.invalid_rows)

    def read(row: int) -> Tensor | None:
        return None if row in invalid else source.read(here[rows[row]]).value

    found = []
    for (view, row), stored in zip(manifest.probe.pairs, pixels, strict=True):
        readable = _rows_of(recipe, manifest, view, row) - invalid
        if row not in readable or any(rows[needed] not in here for needed in readable):
            continue
        rendered = _render(recipe, manifest.views, manifest.teacher, view, row, read, samples)
        assert rendered is not None
        difference = float(np.abs(rendered.astype(np.int16) - stored).mean())
        found.append(ProbeDifference(view, row, rows[row], difference, stored, rendered))
    return found


def _rows_needed(manifest: Manifest, recipe: Recipe) -> set[int]:
    """The rows of the probe and their partners."""
    return {needed for view, row in manifest.probe.pairs for needed in _rows_of(recipe, manifest, view, row)}


def _rows_of(recipe: Recipe, manifest: Manifest, view: int, row: int) -> set[int]:
    """A row and its partner in a view, if any."""
    params = draw(recipe, manifest.views.seed, view, np.array([row]), manifest.data.samples)
    partner = params.partner_of(0)
    return {row} if partner is None else {row, partner}


def _read(source: ImageSource, row: int, skip_unreadable: bool) -> Tensor | None:
    try:
        return source.read(row).value
    except DataError:
        if not skip_unreadable:
            raise
        return None


def _render(
    recipe: Recipe,
    views: ViewsSection,
    teacher: TeacherSection,
    view: int,
    row: int,
    read: ReadImage,
    samples: int,
) -> NDArray[np.uint8] | None:
    (rendered,) = render_views(
        recipe, views.seed, [(row, view)], read, teacher.input_size, teacher.interpolation, samples
    )
    return None if rendered.image is None else np.asarray(rendered.image.numpy(), np.uint8)
