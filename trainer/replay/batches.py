"""Batches of images and the records that belong to them, in the order of the plan."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from cache_builder.datasets.source import reads_remote
from cache_builder.format import DataError
from trainer.replay.order import BatchPlan
from trainer.replay.prefetch import Fetch, RecordFeed, Request, whole_view_fetch
from trainer.replay.view_dataset import Position, Replayed, ViewDataset
from trainer.teacher.client import TeacherCache

# Pages up to here are taken whole: a view of ImageNet at 70 bytes a record is 90 MB.
WHOLE_VIEW_BYTES = 512 * 2**20
_RECORDS_AHEAD = 16


class Batch(NamedTuple):
    """One micro-batch on the host: B samples, each in n views (``BatchPlan.views_per_sample``)."""

    images: Tensor
    """uint8 [n B, 3, S, S]: all samples in the first view, then the same samples in the next."""
    labels: Tensor
    """int64 [B], -1 where there is none, or where any of the views is mixed."""
    records: tuple[Tensor, ...]
    """Of each cache uint8 [n B, record_bytes], in the order of the images; empty without a teacher."""


class TrainingStream:
    """Every micro-batch of a run from one step on, across epochs: nothing waits at an epoch's end.

    Loader workers render the images, one thread of this process for each cache fetches the records.
    ``caches`` empty: no records. Use as a context.
    """

    def __init__(
        self,
        dataset: ViewDataset,
        plan: BatchPlan,
        first_step: int,
        caches: Sequence[TeacherCache],
        *,
        fetch: str = "auto",
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._plan = plan
        loader = make_loader(dataset, _Positions(plan, first_step), workers, pin_memory)
        # The workers are forked before the threads start: a forked copy of a thread's lock stays locked.
        self._images: Iterator[Replayed] = iter(loader)
        self._feeds = [
            RecordFeed(
                choose_fetch(cache, fetch, plan.views_per_sample),
                _requests(dataset, plan, first_step),
                _RECORDS_AHEAD * plan.views_per_sample,
            )
            for cache in caches
        ]

    def take(self, count: int, give_up: Callable[[], bool]) -> list[Batch] | None:
        """The next ``count`` micro-batches; None when ``give_up`` says so while a server is waited for."""
        batches = []
        for _ in range(count):
            records = []
            for feed in self._feeds:
                fetched = self._records(feed, give_up)
                if fetched is None:
                    return None
                records.append(fetched)
            replayed = self._next_images()
            assert isinstance(replayed.label, Tensor)
            # A sample that is mixed in one of the views has no label there, so it has none for the batch.
            labels = replayed.label.view(self._plan.views_per_sample, -1).amin(0)
            batches.append(Batch(replayed.image, labels, tuple(records)))
        return batches

    def _records(self, feed: RecordFeed, give_up: Callable[[], bool]) -> Tensor | None:
        """The records of one micro-batch in all its views."""
        parts = []
        for _ in range(self._plan.views_per_sample):
            fetched = feed.get(give_up)
            if fetched is None:
                return None
            parts.append(torch.from_numpy(fetched))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def close(self) -> None:
        """Stop the threads and the workers."""
        for feed in self._feeds:
            feed.close()
        del self._images

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_images(self) -> Replayed:
        try:
            return next(self._images)
        except DataError as error:
            raise DataError(without_worker_traceback(str(error))) from error


def make_loader(
    dataset: ViewDataset, batches: object, workers: int, pin_memory: bool
) -> DataLoader[Replayed]:
    """A loader that draws no global randomness, its workers deaf to Ctrl-C: the main process decides."""
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of lists of positions will do
        num_workers=workers,
        pin_memory=pin_memory,
        multiprocessing_context="spawn" if workers and reads_remote(dataset.source) else None,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),
    )


def choose_fetch(cache: TeacherCache, mode: str, views: int = 1) -> Fetch:
    """How records are fetched: ``batch``, ``view``, or what suits the size of a page (``auto``).

    ``views``: how many views one batch looks at.
    """
    page_bytes = cache.manifest.data.samples * cache.manifest.codec.layout.record_bytes
    whole = mode == "view" or (mode == "auto" and page_bytes <= WHOLE_VIEW_BYTES)
    return whole_view_fetch(cache, views) if whole else cache.fetch


def without_worker_traceback(message: str) -> str:
    """The sentence in an error that a loader worker sent with its traceback around it."""
    found = re.findall(r"^[\w.]*DataError: (.*)$", message, flags=re.MULTILINE)
    return str(found[-1]) if found else message


class _Positions:
    """The plan as a loader's batch sampler."""

    def __init__(self, plan: BatchPlan, first_step: int) -> None:
        self._plan = plan
        self._first_step = first_step

    def __iter__(self) -> Iterator[list[Position]]:
        for views, positions in self._plan.stream(self._first_step):
            yield in_views(positions, views)


def in_views(positions: NDArray[np.int64], views: Sequence[int]) -> list[Position]:
    """All positions in the first view, then all in the next."""
    return [(int(position), view) for view in views for position in positions]


def _requests(dataset: ViewDataset, plan: BatchPlan, first_step: int) -> Iterator[Request]:
    """(view, rows) of every micro-batch, view by view."""
    for views, positions in plan.stream(first_step):
        for view in views:
            yield view, dataset.rows[positions]


def _prepare_worker(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
