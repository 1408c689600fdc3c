"""Batches of images and the records that belong to them, in the order of the plan."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cache_builder.format import DataError, RecordLayout
from trainer.client import TeacherCache
from trainer.data import Position, Replayed, ViewDataset
from trainer.feed import Fetch, RecordFeed, whole_view_fetch
from trainer.order import BatchPlan

# Pages up to here are taken whole: a view of ImageNet at 70 bytes a record is 90 MB.
WHOLE_VIEW_BYTES = 512 * 2**20
_RECORDS_AHEAD = 16


class Batch(NamedTuple):
    """One micro-batch on the host."""

    images: Tensor
    """uint8 [B, 3, S, S]."""
    labels: Tensor
    """int64 [B], -1 where there is none."""
    records: Tensor | None
    """uint8 [B, record_bytes]; None where no loss looks at the teacher."""


class TrainingStream:
    """Every micro-batch of a run from one step on, across epochs: nothing waits at an epoch's end.

    Loader workers render the images, one thread of this process fetches the records. ``cache`` None: no
    records. Use as a context.
    """

    def __init__(
        self,
        dataset: ViewDataset,
        plan: BatchPlan,
        first_step: int,
        cache: TeacherCache | None,
        *,
        fetch: str = "auto",
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        loader = make_loader(dataset, _Positions(plan, first_step), workers, pin_memory)
        # The workers are forked before the thread starts: a forked copy of a thread's lock stays locked.
        self._images: Iterator[Replayed] = iter(loader)
        self._feed: RecordFeed | None = None
        if cache is not None:
            requests = ((view, dataset.rows[positions]) for view, positions in plan.stream(first_step))
            self._feed = RecordFeed(choose_fetch(cache, fetch), requests, _RECORDS_AHEAD)

    def take(self, count: int, give_up: Callable[[], bool]) -> list[Batch] | None:
        """The next ``count`` micro-batches; None when ``give_up`` says so while a server is waited for."""
        batches = []
        for _ in range(count):
            records = None
            if self._feed is not None:
                fetched = self._feed.get(give_up)
                if fetched is None:
                    return None
                records = torch.from_numpy(fetched)
            replayed = self._next_images()
            assert isinstance(replayed.label, Tensor)
            batches.append(Batch(replayed.image, replayed.label, records))
        return batches

    def close(self) -> None:
        """Stop the thread and the workers."""
        if self._feed is not None:
            self._feed.close()
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
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),
    )


def choose_fetch(cache: TeacherCache, mode: str) -> Fetch:
    """How records are fetched: ``batch``, ``view``, or what suits the size of a page (``auto``)."""
    page_bytes = cache.manifest.data.samples * RecordLayout(cache.manifest.codec).record_bytes
    whole = mode == "view" or (mode == "auto" and page_bytes <= WHOLE_VIEW_BYTES)
    return whole_view_fetch(cache) if whole else cache.fetch


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
        for view, positions in self._plan.stream(self._first_step):
            yield [(int(position), view) for position in positions]


def _prepare_worker(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
