"""Recorded views as one object: what was recorded of them, and how any (row, view) is rendered again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.manifest import ImageInput, Manifest, ViewsSection
from cache_builder.views.apply import ReadImage, Rendered, render_views
from cache_builder.views.configuration import recipe_from
from cache_builder.views.drawing import ViewParams, draw
from cache_builder.views.pairing import Pairing
from cache_builder.views.recipes import Recipe


@dataclass(frozen=True)
class Replay:
    """The views of a cache, or views that are drawn here for want of one.

    It renders whatever ``read`` gives it and opens no data set itself. So it can be compared, pickled and
    sent to loader workers, and builder, trainer and verify render with the same object.
    """

    recipe: Recipe
    seed: int
    """Key of the counter-based generator."""
    count: int
    """V; epoch e uses view e mod V."""
    samples: int
    """N, rows of the cache, over which a recipe that mixes makes its pairs."""
    size: int
    """Side of the rendered pictures in pixels. Crops do not depend on it."""
    interpolation: str
    """nearest, bilinear or bicubic."""

    @classmethod
    def of(cls, manifest: Manifest, size: int | None = None) -> Replay:
        """The views of a cache, at its teacher's size unless another is given.

        Raises :class:`ConfigError` for a recipe that this release does not know.
        """
        return cls.of_sections(manifest.views, manifest.input, manifest.data.samples, size)

    @classmethod
    def of_sections(
        cls, views: ViewsSection, seen: ImageInput, samples: int, size: int | None = None
    ) -> Replay:
        """The same from the parts of a manifest that is not whole yet."""
        recipe = recipe_from(views.recipe)
        side = size or seen.size
        return cls(recipe, views.seed, views.count, samples, side, seen.interpolation)

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed with each other in any of the views."""
        return self.recipe.mixes_any(self.count)

    def batch(self, pairs: Sequence[tuple[int, int]], read: ReadImage) -> list[Rendered]:
        """Render (row, view) pairs, in their order.

        ``read``: gives the picture of a row, or None for one that cannot be read; it is called once for each
        row that is asked for or is a partner. A row whose partner cannot be read is not mixed.
        """
        return render_views(self.recipe, self.seed, pairs, read, self.size, self.interpolation, self.samples)

    def drawn(self, view: int, rows: Sequence[int] | NDArray[np.int64]) -> ViewParams:
        """What was drawn for rows of one view."""
        return draw(self.recipe, self.seed, view, np.asarray(rows, np.int64), self.samples)

    def partners(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The row that each of ``rows`` is mixed with, its own where it stays alone.

        None where the view mixes nothing.
        """
        if not self.recipe.mixes(view):
            return None
        return Pairing(self.seed, view, self.samples).partners(rows)

    def rows_of(self, view: int, row: int) -> set[int]:
        """The rows whose pictures one (row, view) is made of: its own and its partner's, if it has one."""
        partner = self.drawn(view, [row]).partner_of(0)
        return {row} if partner is None else {row, partner}
