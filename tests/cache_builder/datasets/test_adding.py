"""Adding a data set takes a class and a line in ``DATASETS``; your own goes by ``package.module:Name``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache_builder.build.finished import BuildResult
from cache_builder.datasets import DATASETS, open_source
from cache_builder.format.errors import ConfigError
from cache_builder.format.reader import open_cache
from tests.cache_builder.toys import Stripes
from tests.trainer.runs import config
from trainer.run.loop import train

OWN = "tests.cache_builder.toys:Stripes"


@pytest.mark.parametrize("spec", ["toy:24", OWN, f"{OWN}:24"])
def test_it_is_built_and_trained_with(
    run_build: Callable[..., BuildResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.setitem(DATASETS, "toy", Stripes)
    run_build(data=spec, views=2, top_k=3, tail_rank=None, recipe="rrc-flip")
    cache = open_cache(tmp_path / "cache.zarr")
    assert (cache.manifest.data.spec, cache.class_names) == (spec, Stripes.class_names)
    np.testing.assert_array_equal(cache.labels, Stripes().labels)
    result = train(
        config(tmp_path / "run", tmp_path / "cache.zarr", data=spec, limit=None, epochs=1, batch_size=8)
    )
    assert not result.was_finished
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_a_module_beside_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_pictures.py").write_text("from tests.cache_builder.toys import Stripes as Mine\n")
    monkeypatch.chdir(tmp_path)
    assert len(open_source("toy_pictures:Mine:5")) == 5


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("no.such.module:Birds", "data set 'no.such.module:Birds': No module named 'no'"),
        (f"{OWN}es", "has no attribute 'Stripeses'"),
        ("tests.cache_builder.toys:not_a_source", "is a object without spec, ids, labels"),
        (f"{OWN}:many", r"cannot be opened: ValueError: invalid literal .*toys\.py, line \d+"),
    ],
)
def test_what_is_wrong_is_told(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_source(spec)
