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
from cache_builder.datasets.source import read_ahead
from cache_builder.format.errors import DataError, KDCacheError
from cache_builder.format.layout import Tile
from cache_builder.format.starting import start_method
from cache_builder.views.pairing import pairs_first
from cache_builder.views.replay import Replay


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
    partners: dict[int, int]
    """Digests of the images read only because a row is mixed with them, by row; 0 for one that could not be
    read."""


class RenderedRow(NamedTuple):
    """The views of one row."""

    row: int
    digest: int
    images: Tensor
    error: str | None
    partners: dict[int, int]
    """Of the batch, with its first row."""


@dataclass(frozen=True)
class ViewRenderer(Dataset[RenderedRow]):
    """A data set indexed by :class:`RenderTask`."""

    source: ImageSource
    replay: Replay

    def __getitem__(self, task: RenderTask) -> RenderedRow:
        return self.__getitems__([task])[0]

    def __getitems__(self, tasks: Sequence[RenderTask]) -> list[RenderedRow]:
        """A whole batch, which is what a loader asks for: each image is read once, partners included."""
        digests: dict[int, int] = {}
        errors: dict[int, str] = {}
        read_ahead(self.source, [task.row for task in tasks])

        def read(row: int) -> Tensor | None:
            try:
                sample = self.source.read(row)
            except DataError as error:
                errors[row] = str(error)
                return None
            digests[row] = sample.digest
            return sample.value

        wanted = [(task.row, view) for task in tasks for view in range(task.view_start, task.view_stop)]
        pictures = iter(self.replay.batch(wanted, read))
        black = torch.zeros(3, self.replay.size, self.replay.size, dtype=torch.uint8)
        items = []
        for row, view_start, view_stop in tasks:
            views = [next(pictures).image for _ in range(view_start, view_stop)]
            stacked = torch.stack([black if image is None else image for image in views])
            items.append(RenderedRow(row, digests.get(row, 0), stacked, errors.get(row), {}))
        own = {task.row for task in tasks}
        partners = {row: digests.get(row, 0) for row in digests.keys() | errors.keys() if row not in own}
        return [items[0]._replace(partners=partners), *items[1:]]


def in_pairs(replay: Replay, tile: Tile) -> list[int]:
    """The rows of a tile, so ordered that partners of its first mixed view stand side by side.

    Ascending where the recipe mixes nothing. A batch reads each image once, so a pair costs two reads instead
    of three; partners in the tile's other views, and outside the tile, are read once more.
    """
    mixed = next((view for view in tile.views if replay.recipe.mixes(view)), tile.view_start)
    rows = np.arange(tile.row_start, tile.row_stop)
    partners = replay.partners(mixed, rows)
    if partners is None:
        return [int(row) for row in rows]
    return [int(row) for row in rows[pairs_first(partners - tile.row_start)]]


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
            collate_fn=collated,
            pin_memory=pin_memory,
            worker_init_fn=_quiet_worker if workers else None,
            multiprocessing_context=start_method(workers),
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


def collated(items: list[RenderedRow]) -> RenderedBatch:
    """Rows as one batch."""
    rows, digests, images, errors, partners = zip(*items, strict=True)
    return RenderedBatch(list(rows), list(digests), torch.stack(images), list(errors), partners[0])


def _quiet_worker(_: int) -> None:
    """Ctrl-C goes to the whole process group; the main process alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    # A display that was drawing when this process was forked may hold the lock that printing needs.
    warnings.simplefilter("ignore")
    # A thread that hands pictures over prints a traceback when the main process is interrupted meanwhile.
    sys.excepthook = lambda *_: None
