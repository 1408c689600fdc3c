from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cache_builder.datasets import open_source
from cache_builder.format import DataError
from cache_builder.tensors.decode import RecordDecoder
from tests.trainer.replay_caches import write_replay_cache
from tests.trainer.runs import write_digits_cache
from trainer.replay import batches as stream
from trainer.replay.batches import TrainingStream, choose_fetch, without_worker_traceback
from trainer.replay.order import BatchPlan
from trainer.replay.view_dataset import ReplayDataset
from trainer.teacher.client import TeacherCache


def never():
    return False


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")
    with TeacherCache.open(str(path)) as opened:
        yield opened


def taken(dataset, caches, plan, first_step=0, **settings):
    with TrainingStream(dataset, plan, first_step, caches, **settings) as source:
        return [source.take(plan.accumulation, never) for _ in range(first_step, plan.steps)]


def plan_for(dataset, **settings):
    return BatchPlan(len(dataset), 32, epochs=2, views=2, seed=0, **settings)


def dataset_of(cache):
    from cache_builder.datasets import LimitedSource

    return ReplayDataset(cache, LimitedSource(open_source("digits:train"), 160))


def test_records_belong_to_the_images(cache):
    dataset = dataset_of(cache)
    plan = plan_for(dataset)
    decode = RecordDecoder(cache.codec)
    for step, (batch,) in enumerate(taken(dataset, [cache], plan)):
        rows = dataset.rows[plan.micro_batches(step)[0]]
        (view,), (records,) = plan.views_of(step), batch.records
        np.testing.assert_array_equal(records.numpy(), cache.fetch(view, rows))
        # The made-up teacher is right nearly always, so another row's records would show.
        assert (decode(records).argmax(1) == batch.labels).float().mean() > 0.9


@pytest.mark.parametrize("fetch", ["batch", "view", "auto"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_how_they_are_made(cache, fetch, workers):
    dataset = dataset_of(cache)
    plan = plan_for(dataset, accumulation=2)
    for ours, theirs in zip(
        taken(dataset, [cache], plan, fetch=fetch, workers=workers),
        taken(dataset, [cache], plan),
        strict=True,
    ):
        assert len(ours) == 2
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)
            assert torch.equal(a.records[0], b.records[0])


def test_two_views_lie_one_after_the_other(cache):
    dataset = dataset_of(cache)
    one, two = plan_for(dataset), plan_for(dataset, views_per_sample=2)
    alone = [taken(dataset, [cache], one)[step] for step in (0, one.steps_per_epoch)]
    both = taken(dataset, [cache], two)
    # Epochs 0 and 1 of the one see views 0 and 1, in orders of their own; epoch 0 of the other sees both.
    (first,), (pair,) = alone[0], both[0]
    np.testing.assert_array_equal(pair.images[:32], first.images)
    np.testing.assert_array_equal(pair.labels, first.labels)
    np.testing.assert_array_equal(pair.records[0][:32], first.records[0])
    positions = two.micro_batches(0)[0]
    strong = dataset.__getitems__([(int(position), 1) for position in positions])
    np.testing.assert_array_equal(pair.images[32:], torch.stack([item.image for item in strong]))
    np.testing.assert_array_equal(pair.records[0][32:], cache.fetch(1, dataset.rows[positions]))
    assert not torch.equal(pair.images[:32], pair.images[32:])


@pytest.mark.parametrize("workers", [0, 2])
def test_two_views_from_workers_or_page_by_page_are_the_same(cache, workers):
    dataset = dataset_of(cache)
    plan = plan_for(dataset, accumulation=2, views_per_sample=2)
    ours = taken(dataset, [cache], plan, fetch="batch", workers=workers)
    for step, other in zip(ours, taken(dataset, [cache], plan), strict=True):
        for a, b in zip(step, other, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.records[0], b.records[0])


@pytest.mark.parametrize("views_per_sample", [1, 2])
def test_a_page_is_fetched_once_an_epoch(cache, monkeypatch, views_per_sample):
    fetched = []
    whole = TeacherCache.fetch_page

    def counted(self, view):
        fetched.append(view)
        return whole(self, view)

    monkeypatch.setattr(TeacherCache, "fetch_page", counted)
    dataset = dataset_of(cache)
    taken(dataset, [cache], plan_for(dataset, views_per_sample=views_per_sample), fetch="view")
    assert fetched == [0, 1]


def test_several_caches_come_side_by_side(cache, tmp_path):
    write_digits_cache(tmp_path / "b.zarr", seed=5)
    dataset, plan = dataset_of(cache), plan_for(dataset_of(cache))
    with TeacherCache.open(str(tmp_path / "b.zarr")) as other:
        for (batch,), (alone,) in zip(
            taken(dataset, [cache, other], plan), taken(dataset, [other], plan), strict=True
        ):
            assert len(batch.records) == 2
            assert torch.equal(batch.records[1], alone.records[0])
            assert not torch.equal(batch.records[0], batch.records[1])


def test_it_may_begin_in_the_middle(cache):
    dataset = dataset_of(cache)
    plan = plan_for(dataset)
    whole, rest = taken(dataset, [cache], plan), taken(dataset, [cache], plan, first_step=4)
    assert len(rest) == len(whole) - 4
    assert torch.equal(rest[0][0].images, whole[4][0].images)
    assert torch.equal(rest[0][0].records[0], whole[4][0].records[0])


def test_without_a_cache_there_are_no_records(cache):
    dataset = dataset_of(cache)
    assert all(batch.records == () for (batch,) in taken(dataset, [], plan_for(dataset)))


def test_making_a_stream_draws_no_global_randomness(cache):
    dataset = dataset_of(cache)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    taken(dataset, [cache], plan_for(dataset), workers=1)
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
            taken(dataset, [cache], plan, workers=2)
    assert "\n" not in str(error.value)
    assert "sample 'b/07.png' changed since the cache was built" in str(error.value)


def test_other_messages_stay_as_they_are():
    assert without_worker_traceback("plain words") == "plain words"
