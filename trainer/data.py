"""The data set a student sees: every sample in the views its teacher saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cache_builder.datasets import ImageSource, open_source
from cache_builder.format import ConfigError, DataError, Manifest
from cache_builder.views import Recipe, ViewParams, apply, draw, recipe_from
from trainer.checks import check_against_cache, match_rows, usable_labels
from trainer.client import TeacherCache

Position = int | tuple[int, int]


class Replayed(NamedTuple):
    """One sample in one view; collated by a loader, a batch of them with a leading B."""

    image: Tensor
    """uint8 [3, S, S]; normalise on the device."""
    label: int | Tensor
    """Class id, -1 where there is none."""
    row: int | Tensor
    """Row in the cache: ``cache.fetch(view, batch.row)``."""
    view: int | Tensor
    """The view."""


@dataclass(frozen=True)
class Views:
    """Recorded augmentations, as a manifest names them."""

    recipe: Recipe
    seed: int
    """Key of the counter-based generator."""
    count: int
    """V; epoch e uses view e mod V."""
    interpolation: str

    @classmethod
    def of(cls, manifest: Manifest) -> Views:
        """The views of a cache."""
        views = manifest.views
        recipe = recipe_from(views.recipe)
        return cls(recipe, views.seed, views.count, manifest.teacher.interpolation)


class ViewDataset(Dataset[Replayed]):
    """Samples of a source rendered in recorded views. Picklable; touches neither network nor store.

    Positions 0 to len - 1 are the usable samples by rising row. An item is asked for as ``(position, view)``
    or as a position, which means the view of the current epoch (``set_epoch``).
    """

    def __init__(
        self,
        source: ImageSource,
        views: Views,
        image_size: int,
        *,
        rows: NDArray[np.int64] | None = None,
        indices: NDArray[np.int64] | None = None,
        labels: NDArray[np.int32] | None = None,
        digests: NDArray[np.uint64] | None = None,
    ) -> None:
        """``rows``, ``indices``, ``labels`` and ``digests`` [n]: of each position its row, its index in the
        source, its label and the digest it must have; by default those of the source itself.
        """
        self.source = source
        self.views = views
        self.image_size = image_size
        self.indices = np.arange(len(source)) if indices is None else indices
        self.rows = self.indices if rows is None else rows
        self.labels = _labels(source, self.indices) if labels is None else labels
        self.labelled = int((self.labels >= 0).sum())
        """How many samples have a label."""
        self._digests = digests
        # Shared memory: loader workers that live through many epochs see the new one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def has_labels(self) -> bool:
        """Whether every sample has one."""
        return self.labelled == len(self)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch, counted from 0, bare positions belong to: its view is epoch mod V."""
        self._epoch.fill_(epoch)

    def subset(
        self,
        positions: NDArray[np.int64],
        *,
        views: Views | None = None,
        labels: NDArray[np.int32] | None = None,
    ) -> ViewDataset:
        """Some positions, given in rising order; with other ``views`` or ``labels`` [n] where given."""
        return ViewDataset(
            self.source,
            views or self.views,
            self.image_size,
            rows=self.rows[positions],
            indices=self.indices[positions],
            labels=self.labels[positions] if labels is None else labels,
            digests=None if self._digests is None else self._digests[positions],
        )

    def __getitem__(self, position: Position) -> Replayed:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[Position]) -> list[Replayed]:
        """Many items at once: what a loader calls for a batch.

        Views are drawn together, and a sample that is asked for in several views is read once.
        """
        current = int(self._epoch) % self.views.count
        pairs = [item if isinstance(item, tuple) else (int(item), current) for item in positions]
        drawn = self._draw(pairs)
        places: dict[int, list[int]] = {}
        for place, (position, _) in enumerate(pairs):
            places.setdefault(position, []).append(place)
        items: dict[int, Replayed] = {}
        for position, wanted in places.items():
            image = self._read(position)
            for place in wanted:
                pixels = apply(image, *drawn[place], self.image_size, self.views.interpolation)
                label, row = int(self.labels[position]), int(self.rows[position])
                items[place] = Replayed(pixels, label, row, pairs[place][1])
        return [items[place] for place in range(len(pairs))]

    def _draw(self, pairs: Sequence[tuple[int, int]]) -> dict[int, tuple[ViewParams, int]]:
        """Per place, what was drawn for its view and which of that it is."""
        drawn: dict[int, tuple[ViewParams, int]] = {}
        for view in {view for _, view in pairs}:
            places = [place for place, pair in enumerate(pairs) if pair[1] == view]
            rows = self.rows[[pairs[place][0] for place in places]]
            params = draw(self.views.recipe, self.views.seed, view, rows)
            drawn |= {place: (params, index) for index, place in enumerate(places)}
        return drawn

    def _read(self, position: int) -> Tensor:
        sample = self.source.read(int(self.indices[position]))
        if self._digests is not None and sample.digest != int(self._digests[position]):
            sample_id = self.source.ids[int(self.indices[position])]
            raise DataError(
                f"{self.source.spec}: sample {sample_id!r} changed since the cache was built (its digest "
                "differs), so the teacher's answer is about another picture; restore it or rebuild the cache"
            )
        return sample.image


class ReplayDataset(ViewDataset):
    """The samples of a cache in the views its teacher saw, for any training loop.

        cache = TeacherCache.open("http://host:8000/v1/caches/vit_l")
        dataset = ReplayDataset(cache, "imagefolder:/data/train", image_size=160)
        loader = DataLoader(dataset, batch_size=256, shuffle=True, num_workers=8)
        for epoch in range(30):
            dataset.set_epoch(epoch)
            for batch in loader:
                records = cache.fetch(epoch % cache.manifest.views.count, batch.row)

    ``data`` (a spec or an open source) may hold some of the cache's samples only, in any order: they are
    matched by sample id. Rows that the builder could not read are left out. Checked at once, and refused by
    name: number of classes, sample ids, labels, the digests of a few samples and the render probe; checked
    while reading: every sample's digest. Raises :class:`DataError` (or :class:`RenderDriftError`, unless
    ``allow_render_drift``; the two pictures are written to ``drift_folder``).
    """

    def __init__(
        self,
        cache: TeacherCache,
        data: str | ImageSource,
        image_size: int | None = None,
        *,
        allow_render_drift: bool = False,
        drift_folder: Path | str = "render-drift",
    ) -> None:
        source = open_source(data) if isinstance(data, str) else data
        manifest = cache.manifest
        rows, indices = match_rows(cache, source)
        check_against_cache(cache, source, rows, indices, allow_render_drift, Path(drift_folder))
        super().__init__(
            source,
            Views.of(manifest),
            image_size or manifest.teacher.input_size,
            rows=rows,
            indices=indices,
            labels=usable_labels(cache, source, rows, indices),
            digests=cache.digests[rows],
        )


def natural_size(source: ImageSource) -> int:
    """Side in pixels for images that nobody gave one: a small image's own, 224 for others."""
    height, width = source.read(0).image.shape[-2:]
    return min(height, width) if max(height, width) <= 64 else 224


def require_labels(dataset: ViewDataset, who: str, hint: str = "") -> None:
    """Raise :class:`ConfigError` where a label is missing; ``who`` needs them, ``hint`` says what to do."""
    if not dataset.has_labels:
        missing = len(dataset) - dataset.labelled
        raise ConfigError(
            f"{who} needs labels, but {missing} of {len(dataset)} samples of {dataset.source.spec} have none"
            + hint
        )


def _labels(source: ImageSource, indices: NDArray[np.int64]) -> NDArray[np.int32]:
    if source.labels is None:
        return np.full(len(indices), -1, np.int32)
    return source.labels[indices]
