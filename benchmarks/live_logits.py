"""Live logits of a teacher for the very views that a build records.

They are captured by the builder's own plan and renderer, with what ``kdcache build`` does by default, and
kept as ``.npy``: benchmarks of records ask for many of them many times.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.build.plan import Plan, make_plan
from cache_builder.build.rendering import RenderTask, chunks
from cache_builder.build.running import rendered
from cache_builder.build.settings import BuildSettings

VIEWS = 8
_BATCH = 8
"""Samples a forward pass."""
_TOLD = 25
"""Passes between two lines of progress."""

Floats = NDArray[np.float32]
Kept = TypeVar("Kept", bound=np.generic)
See = Callable[[Tensor], Tensor]


def plan_of(teacher: str, data: str, recipe: str | None = None, views: int = VIEWS) -> Plan:
    """What ``kdcache build --teacher T --data D --ignore-labels`` would do."""
    return make_plan(
        BuildSettings(
            teacher=(teacher,),
            data=data,
            out="not-written.zarr",
            views=views,
            recipe=recipe,
            ignore_labels=True,
        )
    )


def captured(plan: Plan, rows: NDArray[np.int64], views: int = VIEWS, see: See | None = None) -> Floats:
    """Logits [rows, views, C], of the views as they are or of what ``see`` makes of them."""
    out: list[Floats] = []
    tasks = [RenderTask(int(row), 0, views) for row in rows]
    for batch in rendered(plan, chunks(tasks, _BATCH)):
        images = batch.images.flatten(0, 1)
        with torch.inference_mode():
            logits = plan.forward.logits(see(images) if see else images).float().cpu().numpy()
        out.append(logits.reshape(len(batch.rows), views, -1))
        if len(out) % _TOLD == 0:
            print(f"{len(out) * _BATCH:,} of {len(tasks):,} samples seen by the teacher", flush=True)
    return np.concatenate(out)


def kept(path: Path, make: Callable[[], NDArray[Kept]]) -> NDArray[Kept]:
    """What a file holds; made and kept where it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, make())
        partial.rename(path)
    found: NDArray[Kept] = np.load(path)
    return found
