"""Caches whose views mix samples: replay, the order of an epoch, labels, whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cache_builder.build.rendering import RenderTask, ViewRenderer
from cache_builder.datasets import LimitedSource, open_source
from cache_builder.format import ConfigError, DataError
from cache_builder.format.manifest import NamedConfiguration
from cache_builder.views import RECIPES, named, parse_recipe, recipe_from
from cache_builder.views.pairing import Pairing
from cache_builder.views.replay import Replay
from tests.cache_builder.views import by_hand
from tests.trainer.replay.test_view_dataset import Counting, spec, write_images
from tests.trainer.replay_caches import write_replay_cache
from tests.trainer.runs import SAMPLES, assembled, assert_same_weights, config, next_batches
from trainer.replay.order import BatchPlan
from trainer.replay.view_dataset import ReplayDataset, ViewDataset
from trainer.run.loop import train
from trainer.teacher.client import TeacherCache

MIXUP = named(parse_recipe("mixup:alpha=1,flip=0"))
STRONG = [name for name, kind in RECIPES.items() if kind().is_strong(1)]
EVERYTHING = (
    "augment:randaugment.num_ops=1,jitter.hue=0.1,erase.probability=0.5,mix.mixup_alpha=1,mix.cutmix_alpha=1"
)
VIEWS = 3


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def opened(folder: Path, images: Path, recipe: NamedConfiguration = MIXUP, **settings) -> TeacherCache:
    source = open_source(spec(images))
    write_replay_cache(folder / "a.zarr", source, views=VIEWS, image_size=16, recipe=recipe, **settings)
    return TeacherCache.open(str(folder / "a.zarr"))


@pytest.fixture
def cache(tmp_path: Path, images: Path) -> Iterator[TeacherCache]:
    with opened(tmp_path, images) as cache:
        yield cache


def rendered_by_hand(cache: TeacherCache, images: Path, row: int, view: int, size: int = 16) -> torch.Tensor:
    manifest, source = cache.manifest, open_source(spec(images))
    recipe = recipe_from(manifest.views.recipe)
    seed, samples = manifest.views.seed, manifest.data.samples
    return by_hand.rendered(
        recipe, seed, view, row, size, samples, lambda wanted: source.read(wanted).value,
        manifest.invalid_rows,
    )  # fmt: skip


class TestReplay:
    @pytest.mark.parametrize("recipe", ["plain", "rrc-flip", "pad-crop-flip", *STRONG, EVERYTHING])
    def test_the_student_sees_what_the_builder_rendered(self, tmp_path, images, recipe):
        chosen = parse_recipe(recipe)
        with opened(tmp_path, images, named(chosen)) as cache:
            source = open_source(spec(images))
            dataset = ReplayDataset(cache, spec(images))
            replay = Replay(chosen, cache.manifest.views.seed, VIEWS, len(source), 16, "bilinear")
            renderer = ViewRenderer(source, replay)
            for row in (0, 5, 35, 17):
                built = renderer[RenderTask(row, 0, VIEWS)]
                assert (built.digest, built.error) == (source.read(row).digest, None)
                for view in range(VIEWS):
                    assert torch.equal(dataset[row, view].image, built.images[view]), (row, view)
                    assert torch.equal(built.images[view], rendered_by_hand(cache, images, row, view))

    def test_an_item_alone_is_what_it_is_in_a_batch(self, cache, images):
        dataset = ReplayDataset(cache, spec(images))
        wanted = [(row, view) for row in (3, 0, 30) for view in (1, 2, 0)]
        for pair, item in zip(wanted, dataset.__getitems__(wanted), strict=True):
            assert torch.equal(dataset[pair].image, item.image)
            assert (item.row, item.view) == pair

    def test_the_student_may_look_at_another_size(self, cache, images):
        item = ReplayDataset(cache, spec(images), image_size=10)[3, 1]
        assert torch.equal(item.image, rendered_by_hand(cache, images, 3, 1, size=10))

    def test_a_mixture_has_no_hard_label(self, cache, images):
        dataset = ReplayDataset(cache, spec(images))
        assert [dataset[row, 0].label for row in (0, 12, 35)] == [0, 1, 2]
        for row in range(36):
            item = dataset[row, 1]
            assert item.label == -1
            assert item.partner == Pairing(7, 1, 36).partners(np.array([row]))[0]
            assert 0 <= item.share <= 1
            assert dataset[item.partner, 1].share == item.share
        batch = next(iter(DataLoader(dataset, batch_size=5)))
        assert batch.share.tolist() == [1.0] * 5
        assert batch.partner.tolist() == batch.row.tolist()

    def test_both_of_a_pair_are_read_once(self, cache, images):
        source = Counting(open_source(spec(images)))
        dataset = ReplayDataset(cache, source)
        partner = dataset[3, 1].partner
        source.read_indices.clear()
        dataset.__getitems__([(3, 1), (partner, 1)])
        assert source.read_indices == [3, partner]

    def test_invalid_partners_are_not_mixed(self, tmp_path, images):
        alone = [int(row) for row in Pairing(7, 1, 36).partners(np.array([4, 33]))]
        with opened(tmp_path, images, invalid_rows=(4, 33)) as cache:
            dataset = ReplayDataset(cache, spec(images))
            for row in alone:
                item = dataset[int(np.flatnonzero(dataset.rows == row)[0]), 1]
                assert (item.partner, item.share, item.label) == (row, 1.0, row // 12)
                assert torch.equal(item.image, rendered_by_hand(cache, images, row, 1))

    def test_a_part_of_the_data_set_is_refused(self, cache, images):
        (images / "class1" / "03.png").unlink()
        with pytest.raises(DataError, match=r"lacks 1 of the 36 samples .*'class1/03.png'.*whole data set"):
            ReplayDataset(cache, spec(images))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_partner_that_changes_later_is_named(self, cache, images, workers):
        dataset = ReplayDataset(cache, spec(images))
        partner = dataset[3, 1].partner
        Image.new("RGB", (20, 20)).save(images / cache.ids[partner])
        with pytest.raises(DataError, match=rf"{cache.ids[partner]}' changed since the cache was built"):
            list(DataLoader(dataset, batch_sampler=[[(3, 1)]], num_workers=workers))

    def test_a_subset_is_mixed_with_the_rest(self, cache, images):
        dataset = ReplayDataset(cache, spec(images))
        part = dataset.subset(np.array([4, 20]))
        for position, row in ((0, 4), (1, 20)):
            assert torch.equal(part[position, 1].image, dataset[row, 1].image)
        assert part.partner_positions(0) is None
        partners = part.partner_positions(1)
        assert partners is not None
        assert partners.tolist() == [0, 1], "both partners lie outside"

    def test_without_a_cache(self, images):
        source = open_source(spec(images))
        dataset = ViewDataset(source, Replay(recipe_from(MIXUP), 7, 2, len(source), 16, "bilinear"))
        assert dataset[3, 1].partner != 3
        assert dataset[3, 1].label == -1


class TestOrder:
    def plan(self, dataset: ViewDataset, **settings) -> BatchPlan:
        usual = {"batch_size": 8, "epochs": 4, "views": VIEWS, "seed": 5}
        return BatchPlan(len(dataset), **(usual | settings), partners=dataset.partner_positions)

    def test_partners_are_in_one_batch(self, cache, images):
        dataset = ReplayDataset(cache, spec(images))
        plan = self.plan(dataset)
        for step in range(plan.steps):
            (view,) = plan.views_of(step)
            (positions,) = plan.micro_batches(step)
            partners = dataset.partner_positions(view)
            if partners is not None:
                assert set(partners[positions].tolist()) == set(positions.tolist())

    def test_every_epoch_is_a_permutation_of_its_own(self, cache, images):
        dataset = ReplayDataset(cache, spec(images))
        plan = self.plan(dataset, batch_size=36)
        epochs = [plan.micro_batches(step)[0].tolist() for step in range(plan.steps)]
        assert all(sorted(epoch) == list(range(36)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 4
        # A function of (seed, epoch) alone: another plan, another start.
        assert [tuple(p) for _, p in self.plan(dataset, batch_size=36).stream(2)] == list(
            map(tuple, epochs[2:])
        )

    def test_unmixed_views_keep_the_usual_order(self, cache, images):
        dataset = ReplayDataset(cache, spec(images))
        ours, usual = self.plan(dataset), BatchPlan(36, 8, 4, VIEWS, 5)
        assert ours.micro_batches(0)[0].tolist() == usual.micro_batches(0)[0].tolist()
        assert ours.micro_batches(4)[0].tolist() != usual.micro_batches(4)[0].tolist()

    def test_of_two_views_the_mixed_one_decides(self, cache, images):
        dataset = ReplayDataset(cache, spec(images))
        plan = self.plan(dataset, views=2, views_per_sample=2)
        (positions,) = plan.micro_batches(0)
        partners = dataset.partner_positions(1)
        assert partners is not None
        assert set(partners[positions].tolist()) == set(positions.tolist())

    def test_an_epoch_reads_each_image_once(self, cache, images):
        source = Counting(open_source(spec(images)))
        dataset = ReplayDataset(cache, source)
        source.read_indices.clear()
        for views, positions in self.plan(dataset, batch_size=12, epochs=2).stream(3):
            dataset.__getitems__([(int(position), views[0]) for position in positions])
        assert sorted(source.read_indices) == list(range(36))


def digits(folder: Path, recipe: str, views: int = 2) -> Path:
    source = LimitedSource(open_source("digits:train"), SAMPLES)
    write_replay_cache(folder / "m.zarr", source, views=views, recipe=named(parse_recipe(recipe)))
    return folder / "m.zarr"


class TestRuns:
    def test_a_student_learns_from_mixtures(self, tmp_path):
        path = digits(tmp_path, "mixup:base=pad-crop-flip,flip=0,alpha=1")
        for name, workers in (("a", 0), ("b", 1)):
            result = train(
                config(tmp_path / name, path, loss="kd(temperature=4)*1", epochs=2, workers=workers)
            )
            assert result.out == str(tmp_path / name)
        assert_same_weights(tmp_path / "a", tmp_path / "b")

    def test_batches_and_records_belong_together(self, tmp_path):
        path = digits(tmp_path, "mixup:base=pad-crop-flip,flip=0,alpha=1")
        settings = {"loss": "kd*1", "epochs": 2}
        with (
            assembled(tmp_path / "a", path, **settings) as (run, stream),
            TeacherCache.open(str(path)) as cache,
        ):
            for step in range(run.plan.steps):
                (batch,) = next_batches(run, stream)
                (view,), (positions,) = run.plan.views_of(step), run.plan.micro_batches(step)
                assert (batch.labels == -1).all() == (view == 1)
                rows = run.dataset.rows[positions]
                np.testing.assert_array_equal(batch.records[0].numpy(), cache.fetch(view, rows))
                for index in (0, 7):
                    item = run.dataset[int(positions[index]), view]
                    assert torch.equal(batch.images[index], item.image)

    @pytest.mark.parametrize(
        ("loss", "named_loss"),
        [
            ("kd", "ce"),
            ("ce*0.5 + kd*0.5", "ce"),
            ("dkd*1", "dkd"),
            ("kd*1 + ce(label_smoothing=0.1)*1", "ce"),
        ],
    )
    def test_losses_of_hard_labels_are_refused(self, tmp_path, loss, named_loss):
        path = digits(tmp_path, "cutmix")
        with pytest.raises(
            ConfigError,
            match=rf"loss '{named_loss}' needs labels, but recipe 'cutmix' mixes .* "
            rf"leave that term out.*{named_loss}\(samples=labelled\)",
        ):
            train(config(tmp_path / "a", path, loss=loss))
        assert not (tmp_path / "a").exists()

    def test_losses_that_learn_from_labels_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"'tgeo' learns from the labels .* recipe 'mixup' mixes"):
            train(config(tmp_path / "a", digits(tmp_path, "mixup"), loss="tgeo(samples=labelled)*1"))

    def test_labels_of_unmixed_views_may_be_used(self, tmp_path):
        path = digits(tmp_path, "mixup:base=pad-crop-flip,flip=0", views=2)
        loss = "kd*1 + ce(samples=labelled)*1"
        with assembled(tmp_path / "a", path, loss=loss, epochs=2) as (run, stream):
            for step in range(run.plan.steps):
                (batch,) = next_batches(run, stream)
                assert (batch.labels >= 0).all() == (run.plan.views_of(step) == (0,))
        train(config(tmp_path / "b", path, loss=loss, epochs=2))

    def test_a_weak_and_a_mixed_view_in_one_batch(self, tmp_path):
        path = digits(tmp_path, "mixup:base=pad-crop-flip,flip=0,strong_views=odd", views=4)
        with assembled(tmp_path / "a", path, loss="mlkd*1", epochs=2) as (run, stream):
            (batch,) = next_batches(run, stream)
            assert len(batch.images) == 2 * len(batch.labels)
            assert (batch.labels == -1).all(), "the label of the weak view is not that of the mixed one"
        train(config(tmp_path / "b", path, loss="mlkd*1", epochs=1))

    def test_strong_views_without_mixing_keep_their_labels(self, tmp_path):
        path = digits(tmp_path, "randaugment:base=pad-crop-flip,flip=0")
        with assembled(tmp_path / "a", path, loss="ce*0.5 + kd*0.5", epochs=2) as (run, stream):
            for batch in next_batches(run, stream):
                assert (batch.labels >= 0).all()
        train(config(tmp_path / "b", path, loss="ce*0.5 + kd*0.5", epochs=2))
