"""A rendered batch to records: teacher, encoder, and what both say of it is checked and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderedBatch
from cache_builder.build.running import check_finite, teacher_failures
from cache_builder.build.statistics import INVALID, NO_LABEL, StatisticsMeter
from cache_builder.console.progress import BuildStats
from cache_builder.datasets.orders import OrderTally
from cache_builder.format.codecs import Fields, Ranked
from cache_builder.format.layout import Tile
from cache_builder.format.manifest import Manifest
from cache_builder.tensors.encode import RecordEncoder


class BatchRecorder:
    """The teacher's records of batches; counts go into ``stats``, :attr:`meter` and :attr:`order`."""

    def __init__(self, plan: Plan, manifest: Manifest, codec: Ranked[Any], stats: BuildStats) -> None:
        self._plan = plan
        self._codec = codec
        self._stats = stats
        self._encoder = RecordEncoder(codec).to(plan.forward.device)
        self._unreadable: set[int] = set()
        self.meter = StatisticsMeter(manifest.classes, plan.forward.device)
        """The sums of a tile."""
        self.order = OrderTally(plan.data_names, manifest.classes, manifest.views.count)
        """Whether another order of the classes suits the teacher better."""

    def record(self, batch: RenderedBatch, tile: Tile) -> NDArray[np.uint8]:
        """Records uint8 [views, rows, record_bytes] of some rows of a tile, NaN where a row is unreadable."""
        with teacher_failures(self._plan, batch.rows):
            encoded = self._encode(batch, tile).cpu().numpy()
        by_row = encoded.reshape(len(batch.rows), len(tile.views), -1)
        records = np.ascontiguousarray(by_row.swapaxes(0, 1))
        self._mark_invalid(records, batch, tile)
        return records

    def _encode(self, batch: RenderedBatch, tile: Tile) -> Tensor:
        """Records uint8 [rows * views, record_bytes] on the device; the live logits are counted there too."""
        labels = torch.from_numpy(self._labels(batch, tile)).long()
        labels[:, [error is not None for error in batch.errors]] = INVALID
        size = self._plan.settings.batch_size
        pieces = torch.split(batch.images.flatten(0, 1), size)
        labels_of = torch.split(labels.T.flatten(), size)
        encoded = []
        for piece, piece_labels in zip(pieces, labels_of, strict=True):
            logits = self._plan.forward.logits(piece)
            self.meter.add(logits, piece_labels)
            encoded.append(self._encoder(logits))
        return torch.cat(encoded)

    def _labels(self, batch: RenderedBatch, tile: Tile) -> NDArray[np.int32]:
        """Labels [views, rows], -1 where none is known and where two samples are mixed."""
        labels = np.tile(self._plan.table.labels[batch.rows], (len(tile.views), 1))
        labels[[self._plan.replay.recipe.mixes(view) for view in tile.views]] = NO_LABEL
        return labels

    def _mark_invalid(self, records: NDArray[np.uint8], batch: RenderedBatch, tile: Tile) -> None:
        """Check what came back: bad logits stop the build, unreadable rows become NaN records."""
        unreadable = [index for index, error in enumerate(batch.errors) if error]
        codec = self._codec
        flat = codec.unpack(records.reshape(-1, records.shape[-1]))
        finite: NDArray[np.bool_] = np.all(codec.usable(flat).reshape(records.shape[:2]), axis=0)
        finite[unreadable] = True
        check_finite(finite, batch.rows, self._plan)
        for index in unreadable:
            records[:, index] = codec.pack(codec.invalid(len(records)))
        self._unreadable.update(batch.rows[index] for index in unreadable)
        self._stats.invalid = len(self._unreadable)
        self._count(flat, batch, tile)

    def _count(self, flat: Fields, batch: RenderedBatch, tile: Tile) -> None:
        labels = self._labels(batch, tile)
        best = self._codec.best(flat).reshape(labels.shape)
        known = (labels >= 0) & np.array([error is None for error in batch.errors])
        self._stats.top1_hits += int((best == labels)[known].sum())
        self._stats.labelled += int(known.sum())
        self.order.add(labels[known], best[known])
        self._stats.clipped += self._codec.saturated(flat)
