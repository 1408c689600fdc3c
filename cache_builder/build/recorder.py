"""A rendered batch to records: teacher, encoder, and what both say of it is checked and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.build.batches import live_logits
from cache_builder.build.kept import KeptMeter
from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderedBatch
from cache_builder.build.running import check_finite, check_held, teacher_failures
from cache_builder.build.statistics import INVALID, NO_LABEL, StatisticsMeter
from cache_builder.console.progress import BuildStats
from cache_builder.datasets.orders import OrderTally
from cache_builder.format.codecs import Fields, Ranked
from cache_builder.format.layout import Tile
from cache_builder.format.manifest import Manifest
from cache_builder.format.statistics import TileStatistics
from cache_builder.tensors.encode import RecordEncoder


class BatchRecorder:
    """The teacher's records of batches; counts go into ``stats``, :meth:`statistics` and :attr:`order`."""

    def __init__(self, plan: Plan, manifest: Manifest, codec: Ranked[Any], stats: BuildStats) -> None:
        self._plan = plan
        self._codec = codec
        self._stats = stats
        self._encoder = RecordEncoder(codec).to(plan.forward.device)
        self._unreadable: set[int] = set()
        self._meter = StatisticsMeter(manifest.classes, plan.forward.device)
        self._kept = KeptMeter(codec, manifest.data.samples)
        self.order = OrderTally(plan.data_names, manifest.classes, manifest.views.count)
        """Whether another order of the classes suits the teacher better."""

    def statistics(self) -> TileStatistics:
        """The sums of a tile: of what was recorded since the last call."""
        return self._meter.take(self._kept.take())

    def record(self, batch: RenderedBatch, tile: Tile, shared: Fields | None = None) -> NDArray[np.uint8]:
        """Records uint8 [views, rows, record_bytes] of some rows of a tile, NaN where a row is unreadable.

        ``shared``: the fields [rows, ...] that the views of these rows share, where they are stored already.
        """
        views = len(tile.views)
        with teacher_failures(self._plan, batch.rows):
            logits = self._logits(batch, tile)
            encoded = self._encoder(logits, views, self._repeated(shared, views)).cpu().numpy()
            best = logits.argmax(dim=1).cpu().numpy().reshape(-1, views).T
        records = np.ascontiguousarray(encoded.reshape(len(batch.rows), views, -1).swapaxes(0, 1))
        self._mark_invalid(records, batch, logits)
        self._kept.add(batch, encoded, logits)
        self._count(best, batch, tile)
        return records

    def _logits(self, batch: RenderedBatch, tile: Tile) -> Tensor:
        """Live logits [rows * views, C] on the device, counted there."""
        labels = torch.from_numpy(self._labels(batch, tile)).long()
        labels[:, [error is not None for error in batch.errors]] = INVALID
        found = live_logits(self._plan, tile.view_start, batch)
        for piece, of_piece in zip(found, torch.split(labels.T.flatten(), len(found[0])), strict=True):
            self._meter.add(piece, of_piece)
        return torch.cat(found)

    def _repeated(self, shared: Fields | None, views: int) -> dict[str, Tensor] | None:
        if shared is None:
            return None
        device = self._plan.forward.device
        return {
            name: torch.from_numpy(column).to(device).repeat_interleave(views, dim=0)
            for name, column in shared.items()
        }

    def _labels(self, batch: RenderedBatch, tile: Tile) -> NDArray[np.int32]:
        """Labels [views, rows], -1 where none is known and where two samples are mixed."""
        labels = np.tile(self._plan.table.labels[batch.rows], (len(tile.views), 1))
        labels[[self._plan.replay.recipe.mixes(view) for view in tile.views]] = NO_LABEL
        return labels

    def _mark_invalid(self, records: NDArray[np.uint8], batch: RenderedBatch, logits: Tensor) -> None:
        """Check what came back: bad logits stop the build, unreadable rows become NaN records."""
        unreadable = [index for index, error in enumerate(batch.errors) if error]
        codec = self._codec
        flat = codec.unpack(records.reshape(-1, records.shape[-1]))
        finite: NDArray[np.bool_] = np.all(codec.usable(flat).reshape(records.shape[:2]), axis=0)
        finite[unreadable] = True
        if not finite.all():
            live = logits.float().cpu().numpy().reshape(len(finite), len(records), -1)
            check_held(finite, live, batch.rows, self._plan)
        check_finite(finite, batch.rows, self._plan)
        for index in unreadable:
            records[:, index] = codec.pack(codec.invalid(len(records)))
        self._unreadable.update(batch.rows[index] for index in unreadable)
        self._stats.invalid = len(self._unreadable)
        self._stats.clipped += codec.saturated(flat)

    def _count(self, best: NDArray[np.int64], batch: RenderedBatch, tile: Tile) -> None:
        """How often the teacher's best class [views, rows] is the label."""
        labels = self._labels(batch, tile)
        known = (labels >= 0) & np.array([error is None for error in batch.errors])
        self._stats.top1_hits += int((best == labels)[known].sum())
        self._stats.labelled += int(known.sum())
        self.order.add(labels[known], best[known])
