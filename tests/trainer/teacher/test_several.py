"""Caches that do not belong together are refused, and the first difference is named."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image

from cache_builder.datasets import LimitedSource, open_source
from cache_builder.format import ConfigError
from cache_builder.format.manifest import NamedConfiguration
from tests.trainer.replay_caches import write_replay_cache
from trainer.teacher.client import TeacherCache
from trainer.teacher.several import check_caches_agree


def source(samples=40):
    return LimitedSource(open_source("digits:train"), samples)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    path = tmp_path_factory.mktemp("caches") / "first.zarr"
    write_replay_cache(path, source(), seed=1)
    return path


def check(*paths):
    with ExitStack() as stack:
        check_caches_agree([stack.enter_context(TeacherCache.open(str(path))) for path in paths])


def test_other_teachers_of_the_same_views_agree(first, tmp_path):
    write_replay_cache(tmp_path / "b.zarr", source(), seed=2, image_size=12, views=5, top_k=2)
    write_replay_cache(tmp_path / "c.zarr", source(), seed=3, unlabelled=True, invalid_rows=(3,))
    check(first)
    check(first, tmp_path / "b.zarr", tmp_path / "c.zarr")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 12}, r"numbers of classes differ \(10 and 12\)"),
        (
            {"recipe": NamedConfiguration(name="rrc-flip", configuration={"flip": 0.0})},
            r"view recipes differ \(.*pad-crop-flip.*rrc-flip",
        ),
        ({"views_seed": 8}, r"view seeds differ \(7 and 8\)"),
        ({"interpolation": "nearest"}, r"interpolations differ \(bilinear and nearest\)"),
    ],
)
def test_what_differs_is_named_with_both_caches(first, tmp_path, settings, message):
    write_replay_cache(tmp_path / "other.zarr", source(), seed=2, **settings)
    with pytest.raises(ConfigError, match=message) as error:
        check(first, tmp_path / "other.zarr")
    assert str(first) in str(error.value)
    assert f"{tmp_path}/other.zarr cannot teach together" in str(error.value)


def test_other_samples_are_named(first, tmp_path):
    write_replay_cache(tmp_path / "few.zarr", source(30), seed=2)
    with pytest.raises(ConfigError, match=r"numbers of samples differ \(40 and 30\)"):
        check(first, tmp_path / "few.zarr")
    write_replay_cache(tmp_path / "test.zarr", LimitedSource(open_source("digits:test"), 40), seed=2)
    with pytest.raises(ConfigError, match=r"sample ids differ \(the first at 0: '0' and '1197'\)"):
        check(first, tmp_path / "test.zarr")


@pytest.mark.parametrize("what", ["labels", "source files"])
def test_contradictions_about_a_sample_are_named(tmp_path, what):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(8):
        Image.new("RGB", (8, 8), (10 * index, 0, 0)).save(folder / f"{index}.png")
    write_replay_cache(tmp_path / "a.zarr", Labelled(folder, np.arange(8)), seed=1)
    labels = np.arange(8)
    if what == "labels":
        labels[5] = 0
    else:
        Image.new("RGB", (8, 8), (0, 0, 99)).save(folder / "5.png")
    write_replay_cache(tmp_path / "b.zarr", Labelled(folder, labels), seed=2)
    with pytest.raises(ConfigError, match=rf"{what} differ, e\.g\. of sample '5\.png'"):
        check(tmp_path / "a.zarr", tmp_path / "b.zarr")


class Labelled:
    """A folder of pictures with labels of the test's choice."""

    def __init__(self, folder, labels):
        self._source = open_source(f"imagefolder:{folder}")
        self.spec, self.ids = self._source.spec, self._source.ids
        self.labels, self.class_names = labels.astype(np.int32), tuple("abcdefgh")

    def __len__(self):
        return len(self._source)

    def read(self, index):
        return self._source.read(index)


def test_one_cache_twice_is_no_ensemble(first, tmp_path):
    with pytest.raises(ConfigError, match="are one cache"):
        check(first, first)
