"""Which samples, in which views, with which labels."""

from __future__ import annotations

import json
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from cache_builder.datasets import DATASETS, LimitedSource, open_source
from cache_builder.datasets.pixels import NEWEST
from cache_builder.format import ConfigError, DataError
from tests.trainer.replay_caches import write_replay_cache
from tests.trainer.run.test_report import run_config
from tests.trainer.runs import SAMPLES, config, write_digits_cache
from trainer.replay.sources import decoding_for, training_source
from trainer.replay.training_data import (
    class_counts,
    count_set_aside,
    split,
    training_data,
)
from trainer.teacher.client import TeacherCache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


def data_of(tmp_path, *caches, **settings):
    with ExitStack() as stack:
        opened = [stack.enter_context(TeacherCache.open(str(path))) for path in caches]
        wanted = config(tmp_path / "out", caches, **settings)
        return training_data(wanted, opened, training_source(wanted))


def test_several_caches_teach_what_all_of_them_can(cache, tmp_path):
    source = LimitedSource(open_source("digits:train"), SAMPLES)
    write_replay_cache(tmp_path / "b.zarr", source, seed=1, views=5, image_size=12, invalid_rows=(0, 7))
    write_replay_cache(tmp_path / "c.zarr", source, seed=2, views=3, invalid_rows=(159,))
    dataset = data_of(tmp_path, tmp_path / "b.zarr", cache, tmp_path / "c.zarr")
    assert not {0, 7, 159} & set(dataset.rows)
    assert len(dataset) == SAMPLES - 3
    assert dataset.views.count == 2  # the smallest
    assert dataset.image_size == 12  # the first one's
    alone = data_of(tmp_path, cache)
    row = int(dataset.rows[50])
    assert dataset[50, 1].label == alone[row, 1].label == int(source.labels[row])


def test_labels_may_come_from_any_of_the_caches(tmp_path, monkeypatch):
    labelled = LimitedSource(open_source("digits:train"), 20)
    monkeypatch.setitem(DATASETS, "bare", lambda _: WithoutLabels(labelled))
    write_replay_cache(tmp_path / "a.zarr", labelled, seed=1, unlabelled=True)
    write_replay_cache(tmp_path / "b.zarr", labelled, seed=2)
    dataset = data_of(tmp_path, tmp_path / "a.zarr", tmp_path / "b.zarr", data="bare:", limit=None)
    assert dataset.labels.tolist() == labelled.labels.tolist()


class WithoutLabels:
    """The same pictures, nobody knows of what."""

    labels = None
    class_names = None

    def __init__(self, source):
        self._source, self.spec, self.ids = source, source.spec, source.ids

    def __len__(self):
        return len(self._source)

    def read(self, index):
        return self._source.read(index)


def test_every_cache_is_checked_against_the_data(cache, tmp_path):
    """The second cache was built by a machine whose pictures come out mirrored in their colours."""
    source = LimitedSource(open_source("digits:train"), SAMPLES)
    write_replay_cache(tmp_path / "drifted.zarr", Inverted(source), seed=1)
    with pytest.raises(DataError, match="renders other pictures"):
        data_of(tmp_path, cache, tmp_path / "drifted.zarr")


class Inverted:
    """Negatives under the digests of the positives."""

    def __init__(self, source):
        self._source, self.spec, self.ids = source, source.spec, source.ids
        self.labels, self.class_names = source.labels, source.class_names

    def __len__(self):
        return len(self._source)

    def read(self, index):
        sample = self._source.read(index)
        return type(sample)(255 - sample.value, sample.digest)


@pytest.mark.parametrize(("share", "kept"), [(0.3, 48), (0.001, 1), (1.0, SAMPLES)])
def test_a_share_of_the_labels_is_kept(cache, tmp_path, share, kept):
    whole, part = data_of(tmp_path, cache), data_of(tmp_path, cache, labelled=share)
    has = part.labels >= 0
    assert has.sum() == part.labelled == kept
    np.testing.assert_array_equal(part.labels[has], whole.labels[has])
    np.testing.assert_array_equal(part.rows, whole.rows)


def test_the_seed_says_which_labels_are_kept(cache, tmp_path):
    def kept(seed):
        return np.flatnonzero(data_of(tmp_path, cache, labelled=0.2, seed=seed).labels >= 0).tolist()

    assert kept(0) == kept(0)
    assert kept(0) != kept(1)


def test_a_share_of_no_labels_is_refused(tmp_path):
    source = LimitedSource(open_source("digits:train"), 20)
    write_replay_cache(tmp_path / "u.zarr", source, classes=20, unlabelled=True)
    with pytest.raises(ConfigError, match=r"--labelled 0\.5: no sample of digits:train has a label"):
        data_of(tmp_path, tmp_path / "u.zarr", labelled=0.5, limit=20)


def test_what_is_set_aside_is_no_longer_trained_on(cache, tmp_path):
    dataset = data_of(tmp_path, cache)
    training, aside = split(dataset, count_set_aside(dataset.labelled), seed=0)
    assert (len(training), len(aside)) == (144, 16)
    assert sorted([*training.rows, *aside.rows]) == dataset.rows.tolist()
    assert training.rows.tolist() == sorted(training.rows)
    assert torch.equal(aside[3, 1].image, dataset[int(aside.rows[3]), 1].image)
    again, other = split(dataset, 16, seed=0), split(dataset, 16, seed=1)
    assert again.set_aside.rows.tolist() == aside.rows.tolist() != other.set_aside.rows.tolist()


def test_only_labelled_samples_are_set_aside(cache, tmp_path):
    dataset = data_of(tmp_path, cache, labelled=0.25)
    count = count_set_aside(dataset.labelled)
    training, aside = split(dataset, count, seed=0)
    assert (count, len(training)) == (4, 156)
    assert (aside.labelled, training.labelled) == (4, 36)


@pytest.mark.parametrize(("labelled", "expected"), [(0, 0), (1, 1), (4, 1), (160, 16), (1199, 120)])
def test_a_tenth_is_set_aside(labelled, expected):
    assert count_set_aside(labelled) == expected


def test_classes_are_counted_where_there_is_a_label(cache, tmp_path):
    dataset = data_of(tmp_path, cache, labelled=0.1)
    counts = class_counts(dataset, 12)
    assert (counts.shape, counts.dtype, int(counts.sum())) == ((12,), torch.int64, 16)
    assert counts[3] == (dataset.labels == 3).sum()
    assert counts[10:].tolist() == [0, 0]


def test_pictures_are_decoded_by_the_caches_rule_or_that_of_the_run_which_goes_on(cache, tmp_path):
    wanted = config(tmp_path / "out", None)
    assert decoding_for(wanted, ()) == NEWEST
    with TeacherCache.open(str(cache)) as opened:
        assert decoding_for(wanted, (opened,)) == opened.manifest.input.decoding == 1
    (tmp_path / "out").mkdir()
    body = run_config(tmp_path / "out").model_dump(mode="json")
    del body["decoding"]  # as earlier releases wrote it
    (tmp_path / "out" / "config.json").write_text(json.dumps(body))
    assert decoding_for(wanted, ()) == 1
