from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cache_builder.datasets import open_source
from cache_builder.format import DataError
from tests.trainer.replay import write_replay_cache
from tests.trainer.runs import write_digits_cache
from trainer import stream
from trainer.client import TeacherCache
from trainer.data import ReplayDataset
from trainer.decode import RecordDecoder
from trainer.order import BatchPlan
from trainer.stream import TrainingStream, choose_fetch, without_worker_traceback


def never():
    return False


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")
    with TeacherCache.open(str(path)) as opened:
        yield opened


def taken(dataset, cache, plan, first_step=0, **settings):
    with TrainingStream(dataset, plan, first_step, cache, **settings) as source:
        return [source.take(plan.accumulation, never) for _ in range(first_step, plan.steps)]


def plan_for(dataset, **settings):
    return BatchPlan(len(dataset), 32, epochs=2, views=2, seed=0, **settings)


def dataset_of(cache):
    from cache_builder.datasets import LimitedSource

    return ReplayDataset(cache, LimitedSource(open_source("digits:train"), 160))


def test_records_belong_to_the_images(cache):
    dataset = dataset_of(cache)
    plan = plan_for(dataset)
    decode = RecordDecoder(cache.manifest)
    for step, (batch,) in enumerate(taken(dataset, cache, plan)):
        rows = dataset.rows[plan.micro_batches(step)[0]]
        np.testing.assert_array_equal(batch.records.numpy(), cache.fetch(plan.view_of(step), rows))
        # The made-up teacher is right nearly always, so another row's records would show.
        assert (decode(batch.records).argmax(1) == batch.labels).float().mean() > 0.9


@pytest.mark.parametrize("fetch", ["batch", "view", "auto"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_how_they_are_made(cache, fetch, workers):
    dataset = dataset_of(cache)
    plan = plan_for(dataset, accumulation=2)
    for ours, theirs in zip(
        taken(dataset, cache, plan, fetch=fetch, workers=workers), taken(dataset, cache, plan), strict=True
    ):
        assert len(ours) == 2
        for a, b in zip(ours, theirs, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_may_begin_in_the_middle(cache):
    dataset = dataset_of(cache)
    plan = plan_for(dataset)
    whole, rest = taken(dataset, cache, plan), taken(dataset, cache, plan, first_step=4)
    assert len(rest) == len(whole) - 4
    assert torch.equal(rest[0][0].images, whole[4][0].images)
    assert torch.equal(rest[0][0].records, whole[4][0].records)


def test_without_a_cache_there_are_no_records(cache):
    dataset = dataset_of(cache)
    assert all(batch.records is None for (batch,) in taken(dataset, None, plan_for(dataset)))


def test_making_a_stream_draws_no_global_randomness(cache):
    dataset = dataset_of(cache)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    taken(dataset, cache, plan_for(dataset), workers=1)
    assert torch.equal(torch.rand(1), expected)


def test_small_pages_are_taken_whole(cache, monkeypatch):
    assert choose_fetch(cache, "auto") != cache.fetch
    assert choose_fetch(cache, "batch") == cache.fetch
    monkeypatch.setattr(stream, "WHOLE_VIEW_BYTES", 100)
    assert choose_fetch(cache, "auto") == cache.fetch


def test_a_file_that_changed_is_named_in_one_sentence(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{index:02d}.png")
    spec = f"imagefolder:{tmp_path / 'images'}"
    write_replay_cache(tmp_path / "a.zarr", open_source(spec), views=1)
    with TeacherCache.open(str(tmp_path / "a.zarr")) as cache:
        dataset = ReplayDataset(cache, spec)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / "b" / "07.png")
        plan = BatchPlan(len(dataset), 10, epochs=1, views=1, seed=0)
        with pytest.raises(DataError) as error:
            taken(dataset, cache, plan, workers=2)
    assert "\n" not in str(error.value)
    assert "sample 'b/07.png' changed since the cache was built" in str(error.value)


def test_other_messages_stay_as_they_are():
    assert without_worker_traceback("plain words") == "plain words"
