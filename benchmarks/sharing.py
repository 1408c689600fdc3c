"""One process against two that share a build by leases, in processor time and by the clock."""

from __future__ import annotations

import io
import multiprocessing
import shutil
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.report import write_results
from cache_builder.build.begin import begin
from cache_builder.build.pipeline import build
from cache_builder.build.plan import make_plan
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import SILENT, BuildProgress
from cache_builder.format.locks.lock import claimed
from cache_builder.format.reader import open_cache
from tests.cache_builder.photographs import write_folder

ROUNDS = 3
ROWS = 96
VIEWS = 8
TILE_ROWS = 8
_PROCESSES = multiprocessing.get_context("forkserver")


class Timed(BuildProgress):
    """Measures a build from its first tile on, its calibration left out."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.began = 0.0, 0.0

    def start(self, phase: str, total: int, done: int = 0, unit: str = "views") -> None:
        super().start(phase, total, done, unit)
        self.began = time.perf_counter(), time.process_time()


def settings(out: Path, photos: Path, share: bool) -> BuildSettings:
    """A build whose teacher takes nearly all of its time."""
    return BuildSettings(
        teacher=("resnet18",), weights=("random",), data=f"imagefolder:{photos}", out=str(out), name="same",
        views=VIEWS, input_size=96, batch_size=32, workers=0, device="cpu", tile_rows=TILE_ROWS, share=share,
        limit=ROWS, allow_unrepeatable=True, ignore_labels=True,
    )  # fmt: skip


def build_share(out: Path, photos: Path, share: bool, answer: Connection) -> None:
    """What one of the processes does; answers with its seconds, its processor seconds and its records."""
    torch.set_num_threads(1)
    with Timed() as progress:
        result = build(settings(out, photos, share), progress)
    wall, processor = progress.began
    answer.send((time.perf_counter() - wall, time.process_time() - processor, result.stats.done))


def measured(out: Path, photos: Path, processes: int, share: bool) -> list[tuple[float, float, int]]:
    """Seconds, processor seconds and records of each process."""
    pipes = [_PROCESSES.Pipe(duplex=False) for _ in range(processes)]
    running = [_PROCESSES.Process(target=build_share, args=(out, photos, share, send)) for _, send in pipes]
    for process in running:
        process.start()
    found = [receive.recv() for receive, _ in pipes]
    for process in running:
        process.join()
    return found


def main() -> None:
    """Take turns, and write the medians."""
    _PROCESSES.set_forkserver_preload(["benchmarks.sharing"])
    torch.set_num_threads(1)
    ways = {"one, alone": (1, False), "one, --share": (1, True), "two, --share": (2, True)}
    found: dict[str, list[list[tuple[float, float, int]]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        photos = write_folder(Path(folder) / "photos", per_class=-(-ROWS // 40))
        begun = Path(folder) / "begun.zarr"
        with claimed(begun) as hold:
            begin(make_plan(settings(begun, photos, share=False)), SILENT, hold)
        ids = set()
        for turn in range(ROUNDS):
            for name, (processes, share) in ways.items():
                out = Path(folder) / f"{turn}-{processes}-{share}.zarr"
                shutil.copytree(begun, out)
                found[name].append(measured(out, photos, processes, share))
                ids.add(open_cache(out).manifest.completed_id)
        assert len(ids) == 1, "the caches differ"
    write_report(found)


def write_report(found: dict[str, list[list[tuple[float, float, int]]]]) -> None:
    """The table: what the work costs in all, and how far two processes shorten it."""
    alone = statistics.median(max(one[1] for one in run) for run in found["one, alone"])
    rows = []
    for name, runs in found.items():
        longest = statistics.median(max(one[1] for one in run) for run in runs)
        rows.append(
            [
                name,
                statistics.median(max(one[0] for one in run) for run in runs),
                statistics.median(sum(one[1] for one in run) for run in runs),
                longest,
                alone / longest,
                "; ".join("+".join(str(one[2]) for one in run) for run in runs),
            ]
        )
    columns = ["processes", "seconds", "processor s in all", "processor s of the busiest"]
    columns += ["one's / the busiest's", "records of each, by run"]
    notes = f"""
resnet18 with random weights at 96 pixels, one thread a process, {ROWS} photographs, {VIEWS} views, tiles of
{TILE_ROWS} rows, from the first tile to the sealed cache; medians of {ROUNDS} runs in turn. All caches
have one cache_id. The machine's two cores were busy with other work, so `seconds` says little; processor time
says what sharing costs (`in all`) and how far two processes shorten a build on cores of their own
(`one's / the busiest's`, at most 2).
"""
    write_results("sharing", "A build shared by processes", columns, rows, notes)


if __name__ == "__main__":
    main()
