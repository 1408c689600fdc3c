from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch
from rich.console import Console

from cache_builder.build.finished import BuildResult
from cache_builder.build.pipeline import build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import BuildProgress
from tests.cache_builder.command import arguments, run
from tests.cache_builder.photographs import write_folder

# How long an example takes says nothing here.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# The models here are too small for more, and waiting threads are what makes a busy machine slow.
torch.set_num_threads(1)

Build = Callable[..., BuildResult]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 class folders of two photographs each. Read only: take ``own_photos`` to change something."""
    return write_folder(tmp_path_factory.mktemp("photos") / "train")


@pytest.fixture(scope="session")
def by_command(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the real command built without being disturbed. Read only."""
    out = tmp_path_factory.mktemp("command") / "cache.zarr"
    ended = run(*arguments(out, photos))
    assert ended.returncode == 0, ended.stderr
    return out


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """A copy of ``photos`` for one test."""
    return Path(shutil.copytree(photos, tmp_path / "own"))


def settings_for(out: Path | str, photos: Path, **changes: object) -> BuildSettings:
    """A small build; every setting can be changed."""
    usual: dict[str, object] = {
        "teacher": "tests.cache_builder.models:small",
        "data": f"imagefolder:{photos}",
        "out": str(out),
        "views": 3,
        "input_size": 16,
        "batch_size": 16,
        "workers": 0,
        "device": "cpu",
        "tile_rows": 32,
        "tail_rank": 12,
        "seed": 5,
    }
    return BuildSettings(**(usual | changes))  # type: ignore[arg-type]


@pytest.fixture
def run_build(photos: Path, tmp_path: Path) -> Build:
    """``run_build(out=..., **changes)`` builds the small cache with some settings changed."""

    def run(
        out: Path | None = None, folder: Path | None = None, log: io.StringIO | None = None, **changes: object
    ) -> BuildResult:
        settings = settings_for(out or tmp_path / "cache.zarr", folder or photos, **changes)
        with BuildProgress(Console(file=log or io.StringIO())) as progress:
            return build(settings, progress)

    return run
