"""Laws over every data set, and the specs that open none."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_builder.datasets import DATASETS, ArraySource, ImageSource, open_source
from cache_builder.format.errors import ConfigError
from tests.cache_builder.photographs import cut


@pytest.fixture(params=["imagefolder", "digits", "array"])
def source(request: pytest.FixtureRequest, photos: Path) -> ImageSource:
    if request.param == "array":
        images = np.stack([cut(index, 32, 32) for index in range(5)])
        return ArraySource("array", images, np.arange(5, dtype=np.int32), tuple("abcde"), first_id=100)
    return open_source(f"imagefolder:{photos}" if request.param == "imagefolder" else "digits")


def test_reading_is_repeatable_and_typed(source: ImageSource) -> None:
    for row in (0, len(source) - 1):
        first, again = source.read(row), source.read(row)
        assert first.image.dtype == torch.uint8
        assert first.image.shape[0] == 3
        assert torch.equal(first.image, again.image)
        assert first.digest == again.digest
        assert 0 <= first.digest < 2**64


def test_lengths_agree(source: ImageSource) -> None:
    assert len(source.ids) == len(set(source.ids)) == len(source)
    assert source.labels is not None
    assert source.labels.dtype == np.int32
    assert source.labels.shape == (len(source),)
    assert source.class_names is not None
    assert source.labels.max() < len(source.class_names)


def test_loader_workers_can_have_it(source: ImageSource) -> None:
    copy = pickle.loads(pickle.dumps(source))
    assert list(copy.ids) == list(source.ids)
    assert copy.spec == source.spec
    assert torch.equal(copy.read(2).image, source.read(2).image)


def test_ids_are_made_once(source: ImageSource) -> None:
    assert source.ids is source.ids


@pytest.mark.parametrize(
    ("spec", "offered"), [("imagefoldr:/data", "imagefolder"), ("digit", "digits"), ("", "cifar10")]
)
def test_unknown_kinds_are_told_the_nearest(spec: str, offered: str) -> None:
    with pytest.raises(ConfigError, match="unknown data set kind") as caught:
        open_source(spec)
    assert offered in str(caught.value)


def test_a_bare_folder_is_told_how_to_write_it(photos: Path) -> None:
    with pytest.raises(ConfigError, match=f"write imagefolder:{photos}"):
        open_source(str(photos))


def test_every_kind_is_listed() -> None:
    assert set(DATASETS) == {"imagefolder", "digits", "cifar10", "cifar100"}
