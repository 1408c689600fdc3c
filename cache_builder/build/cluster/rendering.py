"""Batches that decoders elsewhere render, in the order in which a teacher needs them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch

from cache_builder.build.cluster.runtime import fetched, find_ray, what_died
from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderedBatch, RenderTask
from cache_builder.build.running import named, readable
from cache_builder.format.errors import KDCacheError
from cache_builder.format.waiting import store_waiting

_PATIENCE_S = 30.0
"""A batch that does not come for so long is asked for at another decoder too: whoever is first counts."""
_MOST_PATIENCE_S = 900.0
"""A batch that nobody gives for so long, and for as long as a store is waited for, ends the build."""
_AHEAD = 2
"""Batches that each decoder has to do, so that it never waits for a teacher."""


@dataclass(frozen=True)
class DecodedElsewhere:
    """Renders for a teacher: some batches ahead, dealt to the decoders in turn."""

    decoders: list[Any]
    """Handles of :class:`Decoder` actors."""
    given: list[Any]
    """What one needs that was started anew."""
    teachers: int
    """How many share them."""
    first: int
    """Which decoder begins, so that teachers do not all ask the same one."""

    def __call__(self, plan: Plan, batches: Iterable[list[RenderTask]]) -> Iterator[RenderedBatch]:
        """The batches in their order; unreadable images are treated as in one process."""
        return readable(plan, self._received(plan, batches))

    def _received(self, plan: Plan, batches: Iterable[list[RenderTask]]) -> Iterator[RenderedBatch]:
        turn = cycle([*self.decoders[self.first :], *self.decoders[: self.first]])
        ahead = max(2, -(-_AHEAD * len(self.decoders) // self.teachers))
        asked: deque[tuple[list[RenderTask], Any]] = deque()
        for tasks in batches:
            asked.append((tasks, next(turn).render.remote(tasks, self.given)))
            if len(asked) >= ahead:
                yield self._answer(plan, *asked.popleft(), turn)
        while asked:
            yield self._answer(plan, *asked.popleft(), turn)

    def _answer(self, plan: Plan, tasks: list[RenderTask], asked: Any, turn: Iterator[Any]) -> RenderedBatch:
        ray = find_ray()
        done = self._first_answer(plan, tasks, asked, turn)
        try:
            batch, pixels = fetched(ray, done)
        except what_died(ray) as error:
            raise KDCacheError(
                f"a decoder died again and again while it rendered {_rows(tasks, plan)}: is there too little "
                "memory on its node, or a picture that crashes it?"
            ) from error
        images = torch.tensor(pixels)  # Ray's memory is read-only, and shared
        found: RenderedBatch = batch._replace(
            images=images.pin_memory() if plan.forward.device.type == "cuda" else images
        )
        return found

    def _first_answer(self, plan: Plan, tasks: list[RenderTask], asked: Any, turn: Iterator[Any]) -> Any:
        """Reference of the answer that comes first, by whichever decoder."""
        ray, waiting = find_ray(), [asked]
        limit_s = _MOST_PATIENCE_S + store_waiting().patience_s
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            done, _ = ray.wait(waiting, num_returns=1, timeout=_PATIENCE_S)
            if done:
                return done[0]
            if len(waiting) < len(self.decoders):
                waiting.append(next(turn).render.remote(tasks, self.given))
        raise KDCacheError(
            f"{len(waiting)} decoder(s) were to render {_rows(tasks, plan)}, and none answered within "
            f"{limit_s:g} s: do they hang at a picture or at the disk of --data, or are their nodes gone and "
            "the others full? What was committed is kept, and the same command continues; with "
            "--ray-decoders 0 teachers render for themselves"
        )


def _rows(tasks: list[RenderTask], plan: Plan) -> str:
    return named([task.row for task in tasks], plan)
