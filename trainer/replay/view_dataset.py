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

from cache_builder.datasets import ImageSource, decoded_by, open_source
from cache_builder.format import ConfigError, DataError
from cache_builder.format.positions import require_one_position
from cache_builder.views.apply import Rendered
from cache_builder.views.replay import Replay
from trainer.replay.matching import check_partners, labels_missing, match_rows, usable_labels
from trainer.replay.same_data import check_against_cache
from trainer.teacher.client import TeacherCache

Position = int | tuple[int, int]


class Replayed(NamedTuple):
    """One sample in one view; collated by a loader, a batch of them with a leading B."""

    image: Tensor
    """uint8 [3, S, S]; normalise on the device."""
    label: int | Tensor
    """Class id, -1 where there is none: also where two samples are mixed (mixup, CutMix)."""
    row: int | Tensor
    """Row in the cache: ``cache.fetch(view, batch.row)``."""
    view: int | Tensor
    """The view."""
    partner: int | Tensor
    """Row of the sample it is mixed with; ``row`` where it is not mixed."""
    share: float | Tensor
    """Its own part of the picture, lambda of mixup and CutMix, 0 to 1; 1 where it is not mixed."""


@dataclass(frozen=True)
class RowTable:
    """Every row of a cache in a source: partners of mixed samples may lie outside the part trained on."""

    indices: NDArray[np.int64]
    """[N]: index in the source; -1 for a row that is not there or could not be read by the builder."""
    digests: NDArray[np.uint64] | None
    """[N]: what the source must have; None = not checked."""

    @classmethod
    def of(
        cls,
        samples: int,
        rows: NDArray[np.int64],
        indices: NDArray[np.int64],
        digests: NDArray[np.uint64] | None,
    ) -> RowTable:
        """From the rows that are there."""
        everything = np.full(samples, -1, np.int64)
        everything[rows] = indices
        expected = None
        if digests is not None:
            expected = np.zeros(samples, np.uint64)
            expected[rows] = digests
        return cls(everything, expected)


class ViewDataset(Dataset[Replayed]):
    """Samples of a source rendered in recorded views. Picklable; touches neither network nor store.

    Positions 0 to len - 1 are the usable samples by rising row. An item is asked for as ``(position, view)``
    or as a position, which means the view of the current epoch (``set_epoch``).
    """

    def __init__(
        self,
        source: ImageSource,
        views: Replay,
        *,
        rows: NDArray[np.int64] | None = None,
        indices: NDArray[np.int64] | None = None,
        labels: NDArray[np.int32] | None = None,
        digests: NDArray[np.uint64] | None = None,
        table: RowTable | None = None,
    ) -> None:
        """``rows``, ``indices``, ``labels`` and ``digests`` [n]: of each position its row, its index in the
        source, its label and the digest it must have; by default those of the source itself. ``table``: of
        all rows, for views that mix; by default of the ``rows``.
        """
        self.source = source
        self.views = views
        self.indices = np.arange(len(source)) if indices is None else indices
        self.rows = self.indices if rows is None else rows
        self.labels = _labels(source, self.indices) if labels is None else labels
        self.labelled = int((self.labels >= 0).sum())
        """How many samples have a label."""
        self._table = table or RowTable.of(views.samples, self.rows, self.indices, digests)
        # Shared memory: loader workers that live through many epochs see the new one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image_size(self) -> int:
        """Side of the pictures in pixels."""
        return self.views.size

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
        views: Replay | None = None,
        labels: NDArray[np.int32] | None = None,
    ) -> ViewDataset:
        """Some positions, given in rising order; with other ``views`` or ``labels`` [n] where given."""
        return ViewDataset(
            self.source,
            views or self.views,
            rows=self.rows[positions],
            indices=self.indices[positions],
            labels=self.labels[positions] if labels is None else labels,
            table=self._table,
        )

    def partner_positions(self, view: int) -> NDArray[np.int64] | None:
        """The position of each sample's partner [n] in a view, its own where that is not in this data set.

        None where the view mixes nothing.
        """
        partners = self.views.partners(view, self.rows)
        if partners is None:
            return None
        places = np.minimum(np.searchsorted(self.rows, partners), len(self) - 1)
        return np.where(self.rows[places] == partners, places, np.arange(len(self)))

    def __getitem__(self, position: Position) -> Replayed:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[Position]) -> list[Replayed]:
        """Many items at once: what a loader calls for a batch.

        Views are drawn together, and a sample that is asked for in several views, or that others are mixed
        with, is read once.
        """
        current = int(self._epoch) % self.views.count
        pairs = [item if isinstance(item, tuple) else (int(item), current) for item in positions]
        wanted = [(int(self.rows[position]), view) for position, view in pairs]
        rendered = self.views.batch(wanted, self._read)
        return [self._item(*pair, seen) for pair, seen in zip(pairs, rendered, strict=True)]

    def _item(self, position: int, view: int, seen: Rendered) -> Replayed:
        assert seen.image is not None  # only partners may be missing
        row = int(self.rows[position])
        # A mixed picture shows two classes: its hard label would be wrong.
        label = int(self.labels[position]) if seen.partner == row else -1
        return Replayed(seen.image, label, row, view, seen.partner, seen.share)

    def _read(self, row: int) -> Tensor | None:
        """The image of a row; None for one that the builder could not read."""
        index = int(self._table.indices[row])
        if index < 0:
            return None
        sample = self.source.read(index)
        if self._table.digests is not None and sample.digest != int(self._table.digests[row]):
            raise DataError(
                f"{self.source.spec}: sample {self.source.ids[index]!r} changed since the cache was built "
                "(its digest differs), so the teacher's answer is about another picture; restore it or "
                "rebuild the cache"
            )
        return sample.value


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
    matched by sample id; a cache whose recipe mixes samples needs them all. Rows that the builder could not
    read are left out. Checked at once, and refused by name: number of classes, sample ids, labels, the
    digests of a few samples and the render probe; checked while reading: every sample's digest. Raises
    :class:`ConfigError` for a cache of several positions a sample, and :class:`DataError` for what does not
    fit (or :class:`RenderDriftError`, unless ``allow_render_drift``; the two pictures are written to
    ``drift_folder``).
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
        manifest = cache.manifest
        require_one_position(manifest, cache.location, "ReplayDataset")
        rule = manifest.input.decoding
        source = open_source(data, rule) if isinstance(data, str) else decoded_by(data, rule)
        rows, indices = match_rows(cache, source)
        check_partners(cache, source, rows)
        check_against_cache(cache, source, rows, indices, allow_render_drift, Path(drift_folder))
        super().__init__(
            source,
            Replay.of(manifest, image_size),
            rows=rows,
            indices=indices,
            labels=usable_labels(cache, source, rows, indices),
            digests=cache.digests[rows],
        )


def natural_size(source: ImageSource) -> int:
    """Side in pixels for images that nobody gave one: a small image's own, 224 for others."""
    height, width = source.read(0).value.shape[-2:]
    return min(height, width) if max(height, width) <= 64 else 224


def require_labels(dataset: ViewDataset, who: str, hint: str = "") -> None:
    """Raise :class:`ConfigError` where a label is missing; ``who`` needs them, ``hint`` says what to do."""
    if not dataset.has_labels:
        missing = len(dataset) - dataset.labelled
        raise ConfigError(labels_missing(who, missing, len(dataset), dataset.source.spec) + hint)


def _labels(source: ImageSource, indices: NDArray[np.int64]) -> NDArray[np.int32]:
    if source.labels is None:
        return np.full(len(indices), -1, np.int32)
    return source.labels[indices]
