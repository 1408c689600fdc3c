"""Records, fetched ahead of need by one thread of the main process."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainer.teacher.client import TeacherCache

Fetch = Callable[[int, NDArray[np.int64]], NDArray[np.uint8]]
Request = tuple[int, NDArray[np.int64]]
_POLL_S = 0.2
_CLOSE_S = 1.0


def whole_view_fetch(cache: TeacherCache, pages: int = 1) -> Fetch:
    """A ``fetch`` that takes the whole page of a view once and gathers from it. For one thread.

    ``pages``: how many it holds, those used last: as many as there are views in a batch.
    """
    held: dict[int, NDArray[np.uint8]] = {}

    def fetch(view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        page = held.pop(view, None)
        if page is None:
            while len(held) >= pages:  # before the next one comes: never a page more than needed
                held.pop(next(iter(held)))
            page = cache.fetch_page(view)
        held[view] = page
        return page[rows]

    return fetch


class RecordFeed:
    """The records of a known sequence of (view, rows), at most ``depth`` batches ahead.

    Iterate over it, or call ``get``: the records uint8 [n, record_bytes] of the next request. What goes wrong
    in the thread is raised there. Close it, or use it as a context.
    """

    def __init__(self, fetch: Fetch, requests: Iterable[Request], depth: int = 8) -> None:
        self._queue: queue.Queue[NDArray[np.uint8] | BaseException | None] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(
            target=self._run, args=(fetch, iter(requests)), name="kdcache-records", daemon=True
        )
        self._thread.start()

    def get(self, give_up: Callable[[], bool] = lambda: False) -> NDArray[np.uint8] | None:
        """The next records, None after the last. ``give_up`` is asked while waiting; True also gives None."""
        while not self._ended:
            try:
                item = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                if give_up():
                    return None
                continue
            if isinstance(item, BaseException):
                self._ended = True
                raise item
            self._ended = item is None
            return item
        return None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        while (records := self.get()) is not None:
            yield records

    def close(self) -> None:
        """Stop the thread. One that waits for a server ends when its cache is closed."""
        self._stop.set()
        self._thread.join(timeout=_CLOSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, fetch: Fetch, requests: Iterator[Request]) -> None:
        try:
            for view, rows in requests:
                if self._stop.is_set():
                    return
                self._put(fetch(view, rows))
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the records are asked for
            self._put(error)

    def _put(self, item: NDArray[np.uint8] | BaseException | None) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                return self._queue.put(item, timeout=_POLL_S)
