from __future__ import annotations

import threading

import numpy as np
import pytest

from cache_builder.format import ServerError
from tests.caches import synthetic_logits, write_synthetic_cache
from trainer.replay.prefetch import RecordFeed, whole_view_fetch
from trainer.teacher.client import TeacherCache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "a.zarr"
    write_synthetic_cache(path, synthetic_logits(3, 60, 20))
    with TeacherCache.open(str(path)) as opened:
        yield opened


def requests(count: int = 20):
    rng = np.random.default_rng(0)
    return [(index * 3 // count, rng.integers(60, size=7)) for index in range(count)]


@pytest.mark.parametrize("whole_view", [False, True])
def test_records_come_in_order(cache, whole_view):
    fetch = whole_view_fetch(cache) if whole_view else cache.fetch
    with RecordFeed(fetch, requests(), depth=3) as feed:
        fetched = list(feed)
    assert len(fetched) == 20
    for (view, rows), records in zip(requests(), fetched, strict=True):
        np.testing.assert_array_equal(records, cache.fetch(view, rows))
    assert feed.get() is None


def test_a_whole_view_is_fetched_once(cache):
    pages = []

    class Counting:
        def fetch_page(self, view):
            pages.append(view)
            return cache.fetch_page(view)

    with RecordFeed(whole_view_fetch(Counting()), requests()) as feed:
        list(feed)
    assert pages == [0, 1, 2]


def test_as_many_pages_are_held_as_a_batch_has_views(cache):
    """Views by turns, as two-view batches ask for them, then the next pair; the oldest page goes first."""
    pages = []

    class Counting:
        def fetch_page(self, view):
            pages.append(view)
            return cache.fetch_page(view)

    fetch, rows = whole_view_fetch(Counting(), pages=2), np.array([3, 1])
    for view in (0, 1, 0, 1, 0, 1, 2, 0, 2, 0):
        np.testing.assert_array_equal(fetch(view, rows), cache.fetch(view, rows))
    assert pages == [0, 1, 2, 0]


def test_it_stays_at_most_depth_ahead():
    started = threading.Semaphore(0)

    def fetch(view, rows):
        started.release()
        return np.zeros((1, 1), np.uint8)

    with RecordFeed(fetch, [(0, np.arange(1))] * 50, depth=4) as feed:
        # Four lie in the queue, the fifth waits for a place; a sixth never starts.
        for _ in range(5):
            assert started.acquire(timeout=30)
        assert not started.acquire(timeout=0.5)
        feed.get()
        assert started.acquire(timeout=30)


def test_an_error_is_raised_where_the_records_are_asked_for():
    def fetch(view, rows):
        if view == 1:
            raise ServerError("gone for good")
        return np.zeros((1, 1), np.uint8)

    with RecordFeed(fetch, [(0, np.arange(1)), (1, np.arange(1))]) as feed:
        assert feed.get() is not None
        with pytest.raises(ServerError, match="gone for good"):
            feed.get()
        assert feed.get() is None


def test_waiting_can_be_given_up():
    never = threading.Event()
    feed = RecordFeed(lambda view, rows: never.wait(), [(0, np.arange(1))])
    assert feed.get(give_up=lambda: True) is None
    never.set()
    feed.close()


def test_closing_ends_a_thread_whose_queue_is_full():
    feed = RecordFeed(lambda view, rows: np.zeros((1, 1), np.uint8), [(0, np.arange(1))] * 100, depth=1)
    feed.get()
    feed.close()
    assert not feed._thread.is_alive()
