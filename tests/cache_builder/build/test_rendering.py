from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cache_builder.build.rendering import RenderTask, ViewRenderer, chunks, render_batches
from cache_builder.datasets import ImageFolder, ImageSample
from cache_builder.format.errors import KDCacheError
from cache_builder.views.apply import render
from cache_builder.views.recipes import RrcFlip
from cache_builder.views.replay import Replay

RECIPE = RrcFlip()
TASKS = [RenderTask(row, 1, 4) for row in (5, 0, 33, 79, 12, 13, 14)]


class Deadly(ImageFolder):
    """A folder whose image 12 kills the process that reads it, as the kernel does when memory is gone."""

    def read(self, index: int) -> ImageSample:
        if index == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


def renderer(folder: Path, kind: type[ImageFolder] = ImageFolder) -> ViewRenderer:
    return ViewRenderer(kind(str(folder)), Replay(RECIPE, 7, 4, 80, 16, "bilinear"))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_their_order(photos: Path, workers: int) -> None:
    source = ImageFolder(str(photos))
    batches = list(render_batches(renderer(photos), chunks(TASKS, 3), workers, pin_memory=False))
    assert [batch.rows for batch in batches] == [[5, 0, 33], [79, 12, 13], [14]]
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.errors == [None] * len(batch.rows)
        for row, digest, images in zip(batch.rows, batch.digests, batch.images, strict=True):
            sample = source.read(row)
            assert digest == sample.digest
            for view, image in zip((1, 2, 3), images, strict=True):
                assert torch.equal(image, render(sample.value, RECIPE, 7, view, row, 16, "bilinear"))


def test_an_unreadable_sample_is_black_and_says_why(own_photos: Path) -> None:
    path = own_photos / ImageFolder(str(own_photos)).ids[33]
    path.write_bytes(b"")
    (batch,) = render_batches(renderer(own_photos), chunks(TASKS, 10), 0, pin_memory=False)
    assert str(path) in (batch.errors[2] or "")
    assert [error is None for error in batch.errors].count(False) == 1
    assert not batch.images[2].any()
    assert batch.digests[2] == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_taken_as_they_are_needed(photos: Path, workers: int) -> None:
    taken = 0

    def endless() -> Iterator[list[RenderTask]]:
        nonlocal taken
        while True:
            taken += 1
            yield TASKS[:1]

    batches = render_batches(renderer(photos), endless(), workers, pin_memory=False)
    for _ in range(3):
        next(batches)
    assert taken <= 3 + 2 * workers + 1


def deadly_build(folder: str) -> None:
    """Run by the test below in a process of its own: another test's loader may have left torch's handler."""
    try:
        list(render_batches(renderer(Path(folder), Deadly), chunks(TASKS, 1), 2, pin_memory=False))
    except KDCacheError as error:
        time.sleep(0.5)  # time for a late signal
        sys.stdout.write(f"told: {error}")


def test_a_worker_that_dies_is_told_once(photos: Path) -> None:
    program = f"from {__name__} import deadly_build; deadly_build({str(photos)!r})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("told: a loader process died")
    assert "fewer --workers" in ended.stdout


def test_chunks() -> None:
    assert [len(batch) for batch in chunks(TASKS, 3)] == [3, 3, 1]
    assert list(chunks([], 3)) == []
