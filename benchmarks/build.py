"""``kdcache build`` against a bare forward loop over the same loader, and how many loader processes to take.

Both run the same teacher over the same rendered batches in one process, in turn. The build also encodes,
checks, compresses, writes, syncs and commits; calibration, which happens once, is told apart.
"""

from __future__ import annotations

import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar
from unittest.mock import patch

import torch
from rich.console import Console

from benchmarks.report import alternate, write_results
from cache_builder.build import running
from cache_builder.build.batches import tile_batches
from cache_builder.build.begin import begin
from cache_builder.build.forward import TeacherForward
from cache_builder.build.pipeline import build
from cache_builder.build.plan import Plan, make_plan
from cache_builder.build.rendering import RenderedBatch, ViewRenderer, render_batches
from cache_builder.build.settings import BuildSettings
from cache_builder.build.tile_runner import TileRunner
from cache_builder.console.progress import SILENT, BuildProgress
from cache_builder.format.layout import tiles
from cache_builder.format.locks.lock import claimed
from cache_builder.format.reader import open_cache
from cache_builder.format.writer import CacheWriter
from cache_builder.tensors.encode import RecordEncoder
from tests.cache_builder.photographs import write_folder

# Photographs for each teacher: some twenty seconds of work on two cores.
CUDA = torch.cuda.is_available()
ROWS = {"vit_l_16": 128} if CUDA else {"resnet18": 128, "resnet50": 64, "vit_b_16": 8}
ACCELERATOR = (
    f"Measured on {torch.cuda.get_device_name()}, bf16; the target there is a ratio of 1 / 0.97."
    if CUDA
    else "Measured WITHOUT a GPU: on one, the forward pass is some hundred times faster, the ratio another."
)
VIEWS, BATCH = 8, 32
PHOTO = (375, 500)
ROUNDS = 3
WORKER_COUNTS = (0, 1, 2)
T = TypeVar("T")


def main() -> None:
    """Measure, print and keep both tables."""
    with tempfile.TemporaryDirectory() as folder:
        photos = write_folder(Path(folder) / "photos", classes=2, per_class=64, size=PHOTO)
        write_ratios(Path(folder), photos)
        write_workers(Path(folder), photos)


def settings(out: Path, photos: Path, teacher: str, workers: int | None) -> BuildSettings:
    """A build over the photographs with random weights and 1,000 classes."""
    return BuildSettings(
        teacher=teacher,
        weights="random",
        data=f"imagefolder:{photos}",
        out=str(out),
        name="benchmark",
        views=VIEWS,
        batch_size=BATCH,
        workers=workers,
        ignore_labels=True,
        limit=ROWS[teacher],
        device="cuda" if CUDA else "cpu",
    )


def write_ratios(folder: Path, photos: Path) -> None:
    """The build against the loop, for a convolutional net and a transformer."""
    rows = []
    for teacher in ROWS:
        pair = Pair(folder, photos, teacher)
        measured = alternate({"build": pair.build, "bare": pair.bare}, ROUNDS)
        built, bare = measured["build"], measured["bare"]
        ratios = [a / b for a, b in zip(built, bare, strict=True)]
        parts = pair.parts()
        rows.append(
            [
                teacher,
                statistics.median(built),
                statistics.median(bare),
                statistics.median(ratios),
                statistics.median(pair.inside),
                *(statistics.median(shares) for shares in pair.stalls.values()),
                pair.calibration_s,
                1e3 * parts["encode"],
                1e3 * parts["write"],
            ]
        )
    columns = ["teacher", "build s", "bare loop s", "ratio", "ratio within a build"]
    columns += ["waits for pictures", "waits for the writer", "calibration s"]
    notes = f"""
Photographs of {PHOTO[1]} x {PHOTO[0]} pixels, {VIEWS} views, batches of {BATCH} at 224 pixels, 1,000 classes,
random weights, loader processes as the builder chooses by itself. `ratio` is the median over {ROUNDS} paired
runs that took turns; the build's time runs from the first tile to the sealed cache, in the tiles the builder
chooses by itself (of 64 rows, its smallest), each synced to the disk. `ratio within a build` compares its
time with the part of it that went into the teacher and into waiting for pictures: other work on the
machine, which moves `ratio`, hardly moves it. `waits for` are shares of the build's time. Calibration comes
on top, once per cache: at least 512 views, at most a fiftieth of all or 16,384, rendered one by one, and the
choice of the codec. `encode ms`: encoding one batch; `write ms`: writing one tile, in a thread of its own.
Most of that is the same for a tile of any size: tiles of 4 rows made the ratio of resnet18 1.07, since the
thread takes its share of the two cores.
{ACCELERATOR}
"""
    write_results(
        "build", "Build time against a bare forward loop", [*columns, "encode ms", "write ms"], rows, notes
    )


class Pair:
    """The two runs that are compared, over the same photographs."""

    def __init__(self, folder: Path, photos: Path, teacher: str) -> None:
        self._folder, self._photos, self._teacher = folder, photos, teacher
        # Calibrated once; every build continues a copy that has no tile yet.
        self._begun = folder / f"{teacher}-begun.zarr"
        self._plan = make_plan(settings(self._begun, photos, teacher, None))
        began = time.perf_counter()
        with claimed(str(self._begun)) as hold:
            begin(self._plan, SILENT, hold)
        self.calibration_s = time.perf_counter() - began
        self._built = 0
        self.inside: list[float] = []
        self.stalls: dict[str, list[float]] = {"pictures": [], "writer": []}
        """Shares of the build that waited for them."""

    def build(self) -> float:
        """Seconds of a build from its first tile to its end."""
        self._built += 1
        shutil.copytree(self._begun, self.out)
        with Inside() as inside:
            build(settings(self.out, self._photos, self._teacher, None), inside)
            whole_s = inside.whole_s
        self.inside.append(whole_s / inside.teacher_s)
        for what in self.stalls:
            self.stalls[what].append(inside.spent[what] / whole_s)
        return whole_s

    def bare(self) -> float:
        """Seconds of a loop that renders the same batches in the same way and does nothing but forward."""
        return timed_loop(self._plan)()

    def parts(self) -> dict[str, float]:
        """Seconds of encoding a batch, and of writing and committing a tile."""
        cache = open_cache(self.out)
        encoder = RecordEncoder(cache.codec)
        logits = self._plan.forward.logits(torch.zeros(BATCH, 3, 224, 224, dtype=torch.uint8))
        tile, layout = cache.tiles[0], cache.layout
        page = cache.read_page(0)[tile.row_start : tile.row_stop].copy().view(layout.dtype).reshape(-1)
        fields = {name: page[name][None].repeat(len(tile.views), axis=0) for name in layout.dtype.names or ()}
        writer = CacheWriter(self.out, cache.manifest)
        return {
            "encode": repeated(lambda: encoder(logits)),
            "write": repeated(lambda: writer.write_tile(tile, fields, cache.digests[: len(tile.rows)])),
        }

    @property
    def out(self) -> Path:
        """Where the newest build went."""
        return self._folder / f"{self._teacher}-{self._built}.zarr"


def rendered(plan: Plan) -> Iterator[torch.Tensor]:
    """The builder's own loader over all its tiles: uint8 [rows, views, 3, S, S]."""
    renderer = ViewRenderer(plan.source, plan.replay)
    batches = chain.from_iterable(tile_batches(plan, tile) for tile in tiles(plan.manifest))
    return (batch.images for batch in render_batches(renderer, batches, plan.workers, pin_memory=False))


class Inside(BuildProgress):
    """Measures a build from its first tile on: all of it, and what went into the teacher and its pictures."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self._patches = ExitStack()
        self._began = 0.0
        self.spent = dict.fromkeys(("teacher", "pictures", "writer"), 0.0)
        """Seconds in the teacher, and waited for pictures and for the writer thread."""

    @property
    def teacher_s(self) -> float:
        """What a bare loop would have taken."""
        return self.spent["teacher"] + self.spent["pictures"]

    @property
    def whole_s(self) -> float:
        """Seconds since the first tile was begun."""
        return time.perf_counter() - self._began

    def start(self, phase: str, total: int, done: int = 0, unit: str = "views") -> None:
        super().start(phase, total, done, unit)
        self._began, self.spent = time.perf_counter(), dict.fromkeys(self.spent, 0.0)

    def __enter__(self) -> Self:
        forward, render = TeacherForward.__call__, running.render_batches
        written = TileRunner._written

        def timed_forward(teacher: TeacherForward, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return self._timed("teacher", lambda: waited_for(forward(teacher, images)))

        def timed_written(runner: TileRunner) -> None:
            self._timed("writer", lambda: written(runner))

        def timed_render(*arguments: Any) -> Iterator[RenderedBatch]:
            batches = render(*arguments)
            while (batch := self._timed("pictures", lambda: next(batches, None))) is not None:
                yield batch

        self._patches.enter_context(patch.object(TeacherForward, "__call__", timed_forward))
        self._patches.enter_context(patch.object(running, "render_batches", timed_render))
        self._patches.enter_context(patch.object(TileRunner, "_written", timed_written))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patches.close()
        super().__exit__(*error)

    def _timed(self, what: str, run: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = run()
        self.spent[what] += time.perf_counter() - began
        return result


def write_workers(folder: Path, photos: Path) -> None:
    """Seconds of a bare loop for each number of loader processes."""
    rows = []
    for teacher in ROWS:
        plans = {
            count: make_plan(settings(folder / "unused.zarr", photos, teacher, count))
            for count in WORKER_COUNTS
        }
        measured = alternate({str(count): timed_loop(plan) for count, plan in plans.items()}, ROUNDS)
        rows.append([teacher, *(statistics.median(measured[str(count)]) for count in WORKER_COUNTS)])
    columns = ["teacher", *(f"{count} loader processes, s" for count in WORKER_COUNTS)]
    notes = f"""
The bare loop of the other table (photographs of {PHOTO[1]} x {PHOTO[0]} pixels, {VIEWS} views at 224 pixels,
batches of {BATCH}), medians over {ROUNDS} runs that took turns. The teacher's forward pass runs on the CPU
too and uses every core.
"""
    write_results("build_workers", "Loader processes beside a teacher on the CPU", columns, rows, notes)


def timed_loop(plan: Plan) -> Callable[[], float]:
    """A run of the bare loop as a function that returns its seconds."""

    def run() -> float:
        began = time.perf_counter()
        for images in rendered(plan):
            waited_for(plan.forward(images.flatten(0, 1)))
        return time.perf_counter() - began

    return run


def waited_for(outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The outputs, computed: a GPU answers before it has."""
    if any(output.is_cuda for output in outputs.values()):
        torch.cuda.synchronize()
    return outputs


def repeated(run: Callable[[], object], times: int = 20) -> float:
    """Median seconds of a call."""
    measured = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        measured.append(time.perf_counter() - began)
    return statistics.median(measured)


if __name__ == "__main__":
    main()
