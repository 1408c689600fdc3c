"""What happens before the first tile: look at the teacher, calibrate, render the probe, create the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.build.batches import live_logits, remember, tile_batches
from cache_builder.build.compiling import compile_teacher
from cache_builder.build.forward import size_failures
from cache_builder.build.parts import begun_like
from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderTask, chunks
from cache_builder.build.running import check_finite, rendered, teacher_failures
from cache_builder.build.teacher_check import PICTURES, check_members, check_teacher
from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Calibration, Scope
from cache_builder.calibration.pairs import further_groups
from cache_builder.calibration.topk_tail import nothing_lost
from cache_builder.console.progress import Progress, searching
from cache_builder.datasets import left_out_of
from cache_builder.format.codecs import Ranked
from cache_builder.format.codecs.masking import is_masked
from cache_builder.format.creation import create, header_digests
from cache_builder.format.errors import DataError
from cache_builder.format.layout import tiles
from cache_builder.format.locks.lock import Hold
from cache_builder.format.manifest import Manifest
from cache_builder.format.writer import CacheWriter, header_arrays
from cache_builder.views.probe import render_probe


def look_at_teacher(plan: Plan, progress: Progress) -> bool:
    """Look at a few views before the first of hours; what is odd is told, what is wrong refused.

    Whether the teacher masks classes in them is returned.
    """
    masks = False
    for images, rows in _first_views(plan):
        with size_failures(plan.manifest.input.size):
            plan.forward(images[:1])
        with teacher_failures(plan, rows):
            members = [(name, member.logits) for name, member in plan.forward.members()]
            check_members(members, images)
            told = check_teacher(plan.forward.logits, images, plan.settings.allow_unrepeatable)
            masks = bool(is_masked(plan.forward.logits(images).float().cpu().numpy()).any())
        for line in told:
            progress.say(line)
    return masks


@dataclass(frozen=True)
class Begun:
    """The store of a plan, as it was found or created."""

    manifest: Manifest
    root: bytes | None = None
    """Its ``zarr.json``, where this process has created it a moment ago."""
    codec: Ranked[Any] | None = None
    """The codec that was fitted for it then."""

    def writer(self, out: str, check: Callable[[], None]) -> CacheWriter:
        """Writes its tiles; reads nothing of it that is known."""
        writer = CacheWriter(out, self.manifest, check, self.root)
        if self.codec is not None:
            writer.codec = self.codec
        return writer


def begun(plan: Plan, progress: Progress, hold: Hold, stored: Manifest | None) -> Begun:
    """A plan's store: what is there, what ``--like`` names, or what is begun now.

    ``stored``: the manifest of what is there, as :func:`resumed` gives it. Call while the output is held.
    """
    prepare(plan, progress)
    masks = stored is None and look_at_teacher(plan, progress)
    if left_out := left_out_of(plan.source):
        progress.say(f"{plan.settings.data} leaves out {left_out}")
    there = stored or begun_like(plan)
    return begin(plan, progress, hold, masks) if there is None else Begun(there)


def prepare(plan: Plan, progress: Progress) -> None:
    """Say what is assumed, before the long work, which it would make useless; compile what shall be."""
    for name in ("pictures", "class names"):
        if name in plan.manifest.environment:
            progress.say(f"{name}: {plan.manifest.environment[name]}")
    if plan.settings.compile:
        compile_teacher(plan, progress)


def begin(plan: Plan, progress: Progress, hold: Hold, masks: bool = False) -> Begun:
    """Calibrate, render the probe and create the store.

    ``masks``: the teacher masks classes; then also a codec of every class is fitted, to leave them out.
    """
    calibration = _calibrate(plan, progress, masks)
    for line in (*calibration.told, *nothing_lost(plan.settings.lose, calibration)):
        progress.say(line)
    manifest = plan.manifest
    skip = plan.settings.on_error == "skip"
    probe, pixels = render_probe(plan.source, plan.replay, skip_unreadable=skip)
    update = {"calibration": calibration.section, "probe": probe}
    manifest = manifest.with_codec(calibration.codec.settings).model_copy(update=update)
    arrays = header_arrays(calibration.codec, plan.table, pixels)
    manifest = manifest.model_copy(update={"digests": header_digests(arrays)})
    hold.check()
    return Begun(manifest, create(plan.settings.out, manifest, arrays), calibration.codec)


def _calibrate(plan: Plan, progress: Progress, masks: bool) -> Calibration:
    """Run the teacher on a few thousand (view, row) pairs and fit the codec."""
    manifest = plan.manifest
    classes = manifest.classes
    request = manifest.requested.codec
    found = None if masks else calibrate.unfitted(classes, request, plan.settings.codec)
    if found is not None:
        return found
    codec = plan.settings.codec
    groups = calibrate.groups(manifest, codec)
    views = len(groups[0][1])
    # Where calibration looks at all that there is, it does so in the build's own batches, once for both.
    is_whole = views == manifest.tiling.views and len(groups) == manifest.data.samples
    logits = _looked_at(plan, progress, groups, is_whole)
    further = further_groups(groups, len(logits), manifest.data.samples, classes)
    if further:
        progress.say(
            f"{len(groups) - len(logits)} of the {len(groups)} samples that calibration looked at cannot be "
            f"read: it looks at {len(further)} others"
        )
        logits = np.concatenate([logits, _looked_at(plan, progress, further, is_whole=False)])
    if len(logits) * views < 2:
        raise DataError(
            f"{plan.settings.data}: fewer than two readable views, so no tail can be fitted; "
            f"--top-k {classes} stores every class and needs none"
        )
    records = manifest.data.samples * manifest.views.count
    covers = (len(groups) + len(further)) * views == records
    scope = Scope(views, records, covers, searching(progress))
    return calibrate.fit(logits.reshape(-1, classes), request, codec, scope)


def _looked_at(
    plan: Plan, progress: Progress, groups: list[tuple[int, range]], is_whole: bool
) -> NDArray[np.float32]:
    """The teacher's logits [n, views, C] of the rows and views that can be read.

    ``is_whole``: they are all of the first view group, whose logits are kept for its tiles.
    """
    manifest, views = plan.manifest, len(groups[0][1])
    of_tiles = (tile_batches(plan, tile) for tile in tiles(manifest) if tile.group == 0)
    tasks = [RenderTask(row, of_row.start, of_row.stop) for row, of_row in groups]
    per_batch = max(1, plan.settings.batch_size // views)
    batches = chain.from_iterable(of_tiles) if is_whole else chunks(tasks, per_batch)
    progress.start("calibrating", len(tasks) * views)
    logits = np.empty((len(tasks), views, manifest.classes), np.float32)
    done = read = 0
    for batch in rendered(plan, batches):
        with teacher_failures(plan, batch.rows):
            live = remember(plan, 0, batch) if is_whole else live_logits(plan, 0, batch)
            out = torch.cat(live).float().cpu().numpy().reshape(len(batch.rows), views, -1)
        readable = [index for index, error in enumerate(batch.errors) if error is None]
        usable = (out < np.inf).all(axis=2) & np.isfinite(out).any(axis=2)  # -inf masks a class
        check_finite(usable.all(axis=1)[readable], [batch.rows[i] for i in readable], plan)
        logits[read : read + len(readable)] = out[readable]
        read += len(readable)
        done += len(batch.rows) * views
        progress.update(done, last=done == len(tasks) * views)
    return logits[:read]


def _first_views(plan: Plan) -> Iterator[tuple[Tensor, list[int]]]:
    """At most one batch of readable views, uint8 [n, 3, S, S], spread over the data set, and its rows."""
    rows = sorted(set(np.linspace(0, len(plan.source) - 1, PICTURES).astype(int).tolist()))
    tasks = [RenderTask(row, 0, 1) for row in rows]
    for batch in rendered(replace(plan, workers=0), [tasks]):
        readable = [index for index, error in enumerate(batch.errors) if error is None]
        if readable:
            yield batch.images.flatten(0, 1)[readable], batch.rows
