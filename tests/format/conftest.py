"""Small caches shared by the format tests. Tests that write copy them first."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.caches import synthetic_logits, write_synthetic_cache


@dataclass(frozen=True)
class Written:
    """A finished cache and the logits [V, N, C] it was made from."""

    path: Path
    logits: NDArray[np.float32]


@pytest.fixture(scope="session")
def _tail_cache(tmp_path_factory: pytest.TempPathFactory) -> Written:
    # 3 views in groups of 2 and 12 rows in blocks of 8: both last tiles are partial.
    logits = synthetic_logits(views=3, rows=12, classes=10)
    path = tmp_path_factory.mktemp("tail") / "cache.zarr"
    write_synthetic_cache(path, logits, top_k=3, rank=3, wide=1, tile_views=2, tile_rows=8)
    return Written(path, logits)


@pytest.fixture(scope="session")
def _sketch_cache(tmp_path_factory: pytest.TempPathFactory) -> Written:
    logits = synthetic_logits(views=3, rows=12, classes=10, seed=2)
    path = tmp_path_factory.mktemp("sketch") / "cache.zarr"
    write_synthetic_cache(path, logits, top_k=3, rank=6, wide=1, tile_views=2, tile_rows=8, sketch=True)
    return Written(path, logits)


@pytest.fixture(scope="session")
def _exact_cache(tmp_path_factory: pytest.TempPathFactory) -> Written:
    logits = synthetic_logits(views=2, rows=5, classes=7, seed=1)
    path = tmp_path_factory.mktemp("exact") / "cache.zarr"
    write_synthetic_cache(path, logits, top_k=7, tile_views=8, tile_rows=16)
    return Written(path, logits)


@pytest.fixture
def tail_cache(_tail_cache: Written, tmp_path: Path) -> Written:
    """Top-3 of 10 classes with a rank-3 tail; a copy that the test may damage."""
    return _copied(_tail_cache, tmp_path / "tail.zarr")


@pytest.fixture
def sketch_cache(_sketch_cache: Written, tmp_path: Path) -> Written:
    """Top-3 of 10 classes beside a rank-6 class sketch, 3 half bytes; a copy that the test may damage."""
    return _copied(_sketch_cache, tmp_path / "sketch.zarr")


@pytest.fixture
def exact_cache(_exact_cache: Written, tmp_path: Path) -> Written:
    """All 7 classes stored (K = C), one tile larger than the cache; a copy that the test may damage."""
    return _copied(_exact_cache, tmp_path / "exact.zarr")


def _copied(written: Written, to: Path) -> Written:
    shutil.copytree(written.path, to)
    return Written(to, written.logits)
