"""The batches of a build, and the teacher's answers to one: the same wherever and whenever it is computed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderedBatch, RenderTask, chunks, in_pairs
from cache_builder.format.layout import Tile


def tile_batches(plan: Plan, tile: Tile) -> Iterator[list[RenderTask]]:
    """Batches never cross tiles, so a resumed build computes exactly what an uninterrupted one does."""
    per_batch = max(1, plan.settings.batch_size // len(tile.views))
    rows = in_pairs(plan.replay, tile)
    return chunks([RenderTask(row, tile.view_start, tile.view_stop) for row in rows], per_batch)


def remember(plan: Plan, first_view: int, batch: RenderedBatch) -> list[Tensor]:
    """The live logits of a batch, in pieces [n, C] of the batch size; :func:`live_logits` will know them."""
    found = _computed(plan, batch)
    plan.remembered[first_view, *batch.rows] = [piece.cpu() for piece in found]
    return found


def live_logits(plan: Plan, first_view: int, batch: RenderedBatch) -> list[Tensor]:
    """The live logits of a batch on the device, in pieces [n, C] of the batch size, rows outermost."""
    known = plan.remembered.pop((first_view, *batch.rows), None)
    if known is not None:
        return [piece.to(plan.forward.device) for piece in known]
    return _computed(plan, batch)


def _computed(plan: Plan, batch: RenderedBatch) -> list[Tensor]:
    pieces = torch.split(batch.images.flatten(0, 1), plan.settings.batch_size)
    return [plan.forward.logits(piece) for piece in pieces]
