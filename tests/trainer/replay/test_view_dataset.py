"""Replayed samples are the teacher's views, and a data set that is not the cache's is refused by name."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cache_builder.datasets import open_source
from cache_builder.format import DataError, open_cache
from cache_builder.views import recipe_from
from cache_builder.views.apply import render
from cache_builder.views.replay import Replay
from tests.trainer.replay_caches import PAD_CROP, write_replay_cache
from trainer.replay.order import BatchPlan
from trainer.replay.same_data import RenderDriftError
from trainer.replay.view_dataset import ReplayDataset, ViewDataset, natural_size
from trainer.teacher.client import TeacherCache

VIEWS = 3


def write_images(folder: Path, per_class: int = 12, classes: int = 3, size: int = 20) -> Path:
    """Noise, smooth enough that resizing does something."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(per_class):
            small = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
            picture = Image.fromarray(small).resize((size, size + 4), Image.Resampling.BILINEAR)
            picture.save(folder / f"class{label}" / f"{index:02d}.png")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture
def cache(tmp_path: Path, images: Path) -> Iterator[TeacherCache]:
    write_replay_cache(tmp_path / "a.zarr", open_source(f"imagefolder:{images}"), views=VIEWS, image_size=16)
    with TeacherCache.open(str(tmp_path / "a.zarr")) as opened:
        yield opened


def spec(images: Path) -> str:
    return f"imagefolder:{images}"


def rendered(images: Path, row: int, view: int, size: int = 16) -> torch.Tensor:
    image = open_source(spec(images)).read(row).value
    return render(image, recipe_from(PAD_CROP), 7, view, row, size, "bilinear")


def test_an_item_is_the_view_the_teacher_saw(cache, images):
    dataset = ReplayDataset(cache, spec(images))
    for row, view in [(0, 0), (5, 2), (35, 1)]:
        item = dataset[row, view]
        assert torch.equal(item.image, rendered(images, row, view))
        assert (item.label, item.row, item.view) == (row // 12, row, view)


def test_the_student_may_look_at_another_size(cache, images):
    item = ReplayDataset(cache, spec(images), image_size=10)[3, 1]
    assert torch.equal(item.image, rendered(images, 3, 1, size=10))


def test_a_bare_position_means_the_view_of_the_epoch(cache, images):
    dataset = ReplayDataset(cache, spec(images))
    for epoch in range(5):
        dataset.set_epoch(epoch)
        assert dataset[4].view == epoch % VIEWS
        assert torch.equal(dataset[4].image, dataset[4, epoch % VIEWS].image)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_living_workers_see_the_new_epoch(cache, images, context):
    dataset = ReplayDataset(cache, spec(images))
    loader = DataLoader(
        dataset, batch_size=12, num_workers=1, persistent_workers=True, multiprocessing_context=context
    )
    views = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        views.append({int(view) for batch in loader for view in batch.view})
    assert views == [{0}, {1}, {2}]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(cache, images, workers):
    dataset = ReplayDataset(cache, spec(images))
    plan = BatchPlan(len(dataset), 8, epochs=2, views=VIEWS, seed=5)
    batches = [[(int(p), view) for p in positions] for (view,), positions in plan.stream(1)]
    here = list(DataLoader(dataset, batch_sampler=batches))
    there = list(DataLoader(dataset, batch_sampler=batches, num_workers=workers))
    assert len(here) == len(there) == plan.steps - 1
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_batch_collates_to_tensors(cache, images):
    batch = next(iter(DataLoader(ReplayDataset(cache, spec(images)), batch_size=5)))
    assert batch.image.shape == (5, 3, 16, 16)
    assert batch.image.dtype == torch.uint8
    assert batch.row.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(cache.fetch(0, batch.row), cache.fetch_page(0)[:5])


def test_items_of_different_views_may_share_a_batch(cache, images):
    dataset = ReplayDataset(cache, spec(images))
    together = dataset.__getitems__([(3, 1), (0, 0), (3, 2), (9, 1)])
    assert [(item.row, item.view) for item in together] == [(3, 1), (0, 0), (3, 2), (9, 1)]
    for item in together:
        assert torch.equal(item.image, dataset[item.row, item.view].image)


class Counting:
    """A source that keeps book of what is read."""

    def __init__(self, source):
        self._source, self.spec, self.ids = source, source.spec, source.ids
        self.labels, self.class_names = source.labels, source.class_names
        self.read_indices = []

    def __len__(self):
        return len(self._source)

    def read(self, index):
        self.read_indices.append(index)
        return self._source.read(index)


def test_a_sample_in_two_views_is_decoded_once(cache, images):
    source = Counting(open_source(spec(images)))
    dataset = ReplayDataset(cache, source)
    source.read_indices.clear()
    items = dataset.__getitems__([(7, 1), (2, 1), (30, 1), (7, 2), (2, 2), (30, 2)])
    assert sorted(source.read_indices) == [2, 7, 30]
    assert [(item.row, item.view) for item in items] == [(7, 1), (2, 1), (30, 1), (7, 2), (2, 2), (30, 2)]
    for item in items:
        assert torch.equal(item.image, rendered(images, item.row, item.view))


def test_the_data_set_does_not_carry_the_cache(cache, images):
    copy = pickle.loads(pickle.dumps(ReplayDataset(cache, spec(images))))
    assert torch.equal(copy[2, 1].image, rendered(images, 2, 1))


def test_a_part_of_the_data_set_keeps_its_rows(cache, images, caplog):
    for name in ("class0/00.png", "class1/03.png"):
        (images / name).unlink()
    dataset = ReplayDataset(cache, spec(images))
    assert len(dataset) == 34
    assert dataset[0, 0].row == 1
    assert cache.ids[int(dataset[20, 0].row)] == dataset.source.ids[20]
    assert "34 of the 36 cached samples; without 'class0/00.png', 'class1/03.png'" in caplog.text


class Reversed:
    """The same samples in the opposite order."""

    def __init__(self, source):
        self._source, self.spec, self.class_names = source, source.spec, source.class_names

    ids = property(lambda self: list(reversed(self._source.ids)))
    labels = property(lambda self: self._source.labels[::-1])

    def __len__(self):
        return len(self._source)

    def read(self, index):
        return self._source.read(len(self) - 1 - index)


def test_another_order_gives_the_same_items(cache, images):
    source = open_source(spec(images))
    forward, backward = ReplayDataset(cache, source), ReplayDataset(cache, Reversed(source))
    for position in (0, 7, 35):
        a, b = forward[position, 1], backward[position, 1]
        assert torch.equal(a.image, b.image)
        assert (a.label, a.row) == (b.label, b.row)


def test_invalid_rows_are_left_out(tmp_path, images):
    write_replay_cache(tmp_path / "i.zarr", open_source(spec(images)), image_size=16, invalid_rows=(0, 33))
    with TeacherCache.open(str(tmp_path / "i.zarr")) as cache:
        dataset = ReplayDataset(cache, spec(images))
        assert len(dataset) == 34
        assert not set(dataset.rows) & {0, 33}


def test_a_sample_the_cache_lacks_is_named(cache, images):
    (images / "class2" / "new.png").write_bytes((images / "class2" / "00.png").read_bytes())
    with pytest.raises(DataError, match=r"does not match cache 'replay'.*'class2/new.png'"):
        ReplayDataset(cache, spec(images))


def test_a_changed_file_is_named_at_start(cache, images):
    Image.new("RGB", (20, 20)).save(images / "class0" / "00.png")
    with pytest.raises(DataError, match=r"changed since the cache was built.*'class0/00.png'"):
        ReplayDataset(cache, spec(images))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_changes_later_is_named(cache, images, workers):
    dataset = ReplayDataset(cache, spec(images))
    Image.new("RGB", (20, 20)).save(images / "class1" / "05.png")
    with pytest.raises(DataError, match=r"'class1/05.png' changed since the cache was built"):
        list(DataLoader(dataset, batch_size=6, num_workers=workers))


def test_a_class_folder_too_many_is_refused(cache, images):
    (images / "class9").mkdir()
    (images / "class9" / "a.png").write_bytes((images / "class2" / "00.png").read_bytes())
    with pytest.raises(DataError, match=r"class9/a\.png"):
        ReplayDataset(cache, spec(images))


def test_without_a_class_folder_labels_stay_those_of_the_names(cache, images):
    """By position the classes after it would move down by one."""
    for path in (images / "class0").iterdir():
        path.unlink()
    (images / "class0").rmdir()
    dataset = ReplayDataset(cache, spec(images))
    assert sorted(set(dataset.labels.tolist())) == [1, 2]
    assert dataset.labels.tolist() == cache.labels[dataset.rows].tolist()


def test_other_labels_are_refused_by_name(cache, images):
    source = open_source(spec(images))
    source._labels = (source.labels + 1) % 3
    with pytest.raises(
        DataError, match=r"labels of 36 samples differ.*'class0/00.png' has 'class1' and was 'class0'"
    ):
        ReplayDataset(cache, source)


def test_a_teacher_of_other_classes_gives_no_labels(tmp_path, images, caplog):
    """A cache built with --ignore-labels."""
    source = open_source(spec(images))
    write_replay_cache(tmp_path / "o.zarr", source, image_size=16, classes=20, unlabelled=True)
    with TeacherCache.open(str(tmp_path / "o.zarr")) as cache:
        dataset = ReplayDataset(cache, source)
    assert (dataset.labels == -1).all()
    assert not dataset.has_labels
    assert "its labels are not used" in caplog.text


def test_labels_come_from_the_data_where_the_cache_has_none(tmp_path, images):
    source = open_source(spec(images))
    write_replay_cache(tmp_path / "u.zarr", source, image_size=16, unlabelled=True)
    with TeacherCache.open(str(tmp_path / "u.zarr")) as cache:
        assert ReplayDataset(cache, source).labels.tolist() == source.labels.tolist()


class WithoutAntialias:
    """The same files, rendered by a machine whose pictures come out wrong: mirrored colours."""

    def __init__(self, source):
        self._source, self.spec = source, source.spec
        self.ids, self.labels, self.class_names = source.ids, source.labels, source.class_names

    def __len__(self):
        return len(self._source)

    def read(self, index):
        sample = self._source.read(index)
        return type(sample)(sample.value.flip(0), sample.digest)


def test_render_drift_is_refused_and_both_pictures_are_saved(cache, images, tmp_path):
    source, folder = WithoutAntialias(open_source(spec(images))), tmp_path / "drift"
    with pytest.raises(
        RenderDriftError, match=r"renders other pictures.*-teacher\.png.*--allow-render-drift"
    ):
        ReplayDataset(cache, source, drift_folder=folder)
    stem = next(folder.glob("*-teacher.png")).name.removesuffix("-teacher.png")
    view, row = map(int, re.fullmatch(r"view(\d+)-row(\d+)", stem).groups())
    index = cache.manifest.probe.pairs.index((view, row))
    saved = np.asarray(Image.open(folder / f"{stem}-teacher.png"))
    np.testing.assert_array_equal(saved.transpose(2, 0, 1), cache.probe_pixels[index])
    here = np.asarray(Image.open(folder / f"{stem}-here.png"))
    np.testing.assert_array_equal(here[..., ::-1], saved)


def test_render_drift_can_be_allowed(cache, images, tmp_path, caplog):
    source = WithoutAntialias(open_source(spec(images)))
    dataset = ReplayDataset(cache, source, drift_folder=tmp_path, allow_render_drift=True)
    assert len(dataset) == 36
    assert "renders other pictures" in caplog.text


def test_without_a_cache_the_views_are_drawn_from_the_recipe(images):
    source = open_source(spec(images))
    dataset = ViewDataset(source, Replay(recipe_from(PAD_CROP), 7, VIEWS, len(source), 16, "bilinear"))
    assert torch.equal(dataset[3, 2].image, rendered(images, 3, 2))
    assert dataset[30, 0].label == 2
    assert natural_size(source) == 20


def test_a_subset_keeps_rows_and_views(cache, images):
    dataset = ReplayDataset(cache, spec(images))
    part = dataset.subset(np.array([4, 20]))
    assert len(part) == 2
    assert torch.equal(part[1, 2].image, dataset[20, 2].image)
    assert part.rows.tolist() == [4, 20]
    assert part.has_labels


def test_a_subset_may_have_other_labels_and_views(cache, images):
    dataset = ReplayDataset(cache, spec(images))
    part = dataset.subset(
        np.array([4, 20]), labels=np.array([-1, 1], np.int32), views=replace(dataset.views, count=2)
    )
    assert [part[position, 0].label for position in (0, 1)] == [-1, 1]
    assert (part.labelled, part.has_labels, dataset.has_labels) == (1, False, True)
    part.set_epoch(2)
    assert part[0].view == 0


def test_the_cache_written_here_is_one(cache):
    assert open_cache(cache.location).manifest.cache_id == cache.cache_id
