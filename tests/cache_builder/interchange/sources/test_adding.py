"""A format of dumps of one's own goes by ``package.module:Name``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cache_builder.console.progress import BuildProgress
from cache_builder.format.errors import ConfigError
from cache_builder.format.reader import open_cache
from cache_builder.interchange.importing import import_and_measure
from cache_builder.interchange.settings import ImportSettings
from tests.cache_builder.toys import Counted


def settings(tmp_path: Path, form: str) -> ImportSettings:
    return ImportSettings(source=tmp_path, form=form, out=str(tmp_path / "out.zarr"))


def test_it_is_imported(tmp_path: Path) -> None:
    wanted = settings(tmp_path, "tests.cache_builder.toys:Counted")
    with BuildProgress(Console(file=io.StringIO())) as progress:
        import_and_measure(wanted, progress)
    cache = open_cache(tmp_path / "out.zarr")
    expected = Counted(wanted).block(range(2), np.arange(20))
    for view in range(2):
        decoded = cache.decode(cache.read_rows(view, range(20)))
        np.testing.assert_array_equal(decoded.argmax(axis=1), expected[view].argmax(axis=1))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("parquets", "is not one of dense, tinyvit, fkd, topk-parquet, nor package.module:Name"),
        ("tests.cache_builder.toys:Uncounted", "dump format .* has no attribute 'Uncounted'"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, form: str, said: str) -> None:
    with BuildProgress(Console(file=io.StringIO())) as progress, pytest.raises(ConfigError, match=said):
        import_and_measure(settings(tmp_path, form), progress)
