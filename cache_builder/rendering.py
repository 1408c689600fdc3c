"""Rendering work for loader workers: one decode of an image gives all its views of a tile."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache_builder.datasets import ImageSource
from cache_builder.format.errors import DataError, KDCacheError
from cache_builder.views import Recipe, apply, draw


class RenderTask(NamedTuple):
    """Render the views [view_start, view_stop) of one row."""

    row: int
    view_start: int
    view_stop: int


class RenderedBatch(NamedTuple):
    """Rendered views of some rows, in the order asked for."""

    rows: list[int]
    digests: list[int]
    """xxh64 of each row's source bytes."""
    images: Tensor
    """uint8 [rows, views, 3, size, size]; black where the sample could not be read."""
    errors: list[str | None]
    """Why a row could not be read."""


@dataclass(frozen=True)
class ViewRenderer(Dataset[tuple[int, int, Tensor, str | None]]):
    """A data set indexed by :class:`RenderTask`."""

    source: ImageSource
    recipe: Recipe
    seed: int
    size: int
    interpolation: str

    def __getitem__(self, task: RenderTask) -> tuple[int, int, Tensor, str | None]:
        views = range(task.view_start, task.view_stop)
        try:
            sample = self.source.read(task.row)
        except DataError as error:
            black = torch.zeros(len(views), 3, self.size, self.size, dtype=torch.uint8)
            return task.row, 0, black, str(error)
        row = np.array([task.row])
        rendered = [
            apply(sample.image, draw(self.recipe, self.seed, view, row), 0, self.size, self.interpolation)
            for view in views
        ]
        return task.row, sample.digest, torch.stack(rendered), None


def chunks(tasks: Sequence[RenderTask], size: int) -> Iterator[list[RenderTask]]:
    """Consecutive batches of up to ``size`` tasks."""
    return (list(tasks[start : start + size]) for start in range(0, len(tasks), size))


def render_batches(
    renderer: ViewRenderer, batches: Iterable[list[RenderTask]], workers: int, pin_memory: bool
) -> Iterator[RenderedBatch]:
    """Render batches of tasks in their order, whatever the number of worker processes.

    Raises :class:`KDCacheError` when a worker process dies.
    """
    rendered = _loaded(renderer, batches, workers, pin_memory)
    try:
        yield from rendered
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        # A worker that dies while it hands over a picture closes a socket or takes it away.
        if not workers or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
            raise
        raise KDCacheError(
            "a loader process died, as when memory runs out; committed work is kept: use fewer --workers "
            "(0 renders in the main process) or a smaller --batch-size"
        ) from error


def _loaded(
    renderer: ViewRenderer, batches: Iterable[list[RenderTask]], workers: int, pin_memory: bool
) -> Iterator[RenderedBatch]:
    with warnings.catch_warnings(), _no_child_handler():
        # Who asks for more workers than cores gets them without being told twice.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(
            renderer,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            worker_init_fn=_quiet_worker if workers else None,
        )
        return iter(loader)


@contextmanager
def _no_child_handler() -> Iterator[None]:
    """Undo the SIGCHLD handler that torch installs for its workers.

    It raises out of any line of the main process, also out of the handling of its own error. Without it the
    death of a worker is told within five seconds by the loader that waits for it.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _collate(items: list[tuple[int, int, Tensor, str | None]]) -> RenderedBatch:
    rows, digests, images, errors = zip(*items, strict=True)
    return RenderedBatch(list(rows), list(digests), torch.stack(images), list(errors))


def _quiet_worker(_: int) -> None:
    """Ctrl-C goes to the whole process group; the main process alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    # A display that was drawing when this process was forked may hold the lock that printing needs.
    warnings.simplefilter("ignore")
    # A thread that hands pictures over prints a traceback when the main process is interrupted meanwhile.
    sys.excepthook = lambda *_: None
