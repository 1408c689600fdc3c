"""Rows of several positions, as a training program gets them: from a server and from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from cache_builder.client import remote_cache as remote
from cache_builder.format import ConfigError, DataError, open_cache
from cache_builder.tensors.decode import RecordDecoder
from tests.format.position_caches import COUNTS_OF_ROWS
from tests.format.test_golden import GOLDEN
from tests.trainer.servers import server
from trainer.replay.view_dataset import ReplayDataset
from trainer.run.inputs import open_teacher
from trainer.teacher.client import TeacherCache

COUNTS = {"grid": (6,) * 5, "ragged": COUNTS_OF_ROWS}
ROWS = [4, 2, 0, 3, 1, 0]


@pytest.fixture(params=["http", "path"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(COUNTS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cache(way: str, kind: str) -> Iterator[TeacherCache]:
    path = GOLDEN / f"v3/{kind}.zarr"
    with ExitStack() as stack:
        location = stack.enter_context(server(path)) if way == "http" else str(path)
        yield stack.enter_context(TeacherCache.open(location))


@pytest.mark.parametrize("at_once", [1, 7, 16_384])
def test_records_and_counts_are_those_of_the_store(
    cache: TeacherCache, kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RECORDS_PER_REQUEST", at_once)
    store, logits = open_cache(GOLDEN / f"v3/{kind}.zarr"), np.load(GOLDEN / f"v3/{kind}.npy")
    by_row = np.split(np.arange(sum(COUNTS[kind])), np.cumsum(COUNTS[kind])[:-1])
    for view in range(3):
        records, counts = cache.fetch_rows(view, ROWS)
        assert counts.tolist() == [COUNTS[kind][row] for row in ROWS]
        np.testing.assert_array_equal(records, store.gather(view, ROWS))
        values = cache.fetch_values(view, ROWS)
        own = np.concatenate([by_row[row] for row in ROWS])
        np.testing.assert_allclose(values.values, logits[view][own], rtol=1e-6, atol=1e-6)
        assert values.counts.tolist() == counts.tolist()
        whole = cache.fetch_rows(view)
        np.testing.assert_array_equal(whole.records, store.read_page(view))
        assert whole.counts.tolist() == list(COUNTS[kind])
        decoded = RecordDecoder(cache.codec)(torch.from_numpy(whole.records)).numpy()
        np.testing.assert_allclose(decoded, logits[view], rtol=1e-5, atol=1e-5)


def test_rows_without_a_record_and_no_rows(cache: TeacherCache, kind: str) -> None:
    records, counts = cache.fetch_rows(0, [1])
    assert len(records) == counts.sum() == COUNTS[kind][1]
    empty = cache.fetch_values(0, [])
    assert empty.values.shape == (0, 12)
    assert empty.counts.shape == (0,)


def test_what_is_out_of_range_is_refused(cache: TeacherCache) -> None:
    for view, rows in ((3, [0]), (0, [5]), (0, [-1])):
        with pytest.raises(DataError, match=r"out of range|must lie in"):
            cache.fetch_rows(view, rows)
    with pytest.raises(DataError, match="must lie in"):
        cache.counts([0, 5])


def test_who_takes_one_record_a_row_says_so(cache: TeacherCache) -> None:
    for fetch in (lambda: cache.fetch(0, [0]), lambda: cache.fetch_page(0)):
        with pytest.raises(ConfigError, match="several positions a sample"):
            fetch()


def test_training_says_so(kind: str) -> None:
    with ExitStack() as stack, pytest.raises(ConfigError, match="which kdtrain does not know yet"):
        open_teacher(str(GOLDEN / f"v3/{kind}.zarr"), stack)


def test_the_data_set_of_a_training_loop_says_so(cache: TeacherCache) -> None:
    """Before it looks for samples of the data."""
    with pytest.raises(ConfigError, match=r"several positions a sample .* which ReplayDataset does not know"):
        ReplayDataset(cache, "digits:train")


@pytest.mark.parametrize("rows", [np.array([True, False]), [1.7], ["a"]])
def test_rows_that_are_no_integers_are_refused(cache: TeacherCache, rows: object) -> None:
    with pytest.raises(DataError, match="rows must be integers"):
        cache.fetch_rows(0, rows)  # type: ignore[arg-type]
