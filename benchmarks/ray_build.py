"""``kdcache build --engine ray`` on a loopback cluster: one worker, two, and two of which one is killed.

Times of this script are of a small machine that may be busy: processor times and bytes are what it is for.
"""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from rich.console import Console

from benchmarks.report import write_results
from cache_builder.build.pipeline import build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import BuildProgress
from tests.cache_builder.build.cluster.local_cluster import LOOPBACK, LocalCluster, local_cluster
from tests.cache_builder.trees import objects

ROWS, VIEWS, TILE_ROWS = 768, 16, 16
_LOOK_S = 0.2
_BUSIEST = 5
"""Column of the busiest teacher's processor time."""


@dataclass
class Watch:
    """The actors of a cluster: the processor time of each while it lived, and one that is killed.

    Teachers that have begun are stopped until ``together`` of them have: how long each takes to start, which
    is a matter of the machine, then does not decide who builds what.
    """

    cluster: LocalCluster
    commits: Path
    kill_after: int | None
    """Tiles after which one teacher is killed."""
    together: int
    seconds: dict[int, float] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)
    """Processor time of each teacher until its first row block."""
    stopped: list[psutil.Process] = field(default_factory=list)
    killed: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look until the build has ended."""
        while not self.ended.wait(_LOOK_S):
            for process in psutil.Process(self.cluster.process.pid).children(recursive=True):
                self._look_at(process)

    def _look_at(self, process: psutil.Process) -> None:
        try:
            name = " ".join(process.cmdline())
            if not re.match(r"ray::(Teacher|Decoder)\b", name):
                return
            times = process.cpu_times()
            self.seconds[process.pid] = times.user + times.system
            if name.startswith("ray::Teacher.run") and process.pid not in self.began:
                self._begin(process)
            due = self.kill_after is not None and len(list(self.commits.glob("g*.json"))) >= self.kill_after
            if due and self.killed is None and name.startswith("ray::Teacher.run"):
                process.send_signal(signal.SIGKILL)
                self.killed = process.pid
        except psutil.NoSuchProcess:
            return

    def _begin(self, teacher: psutil.Process) -> None:
        self.began[teacher.pid] = self.seconds[teacher.pid]
        if len(self.began) < self.together:
            teacher.suspend()
            self.stopped.append(teacher)
        while len(self.began) >= self.together and self.stopped:
            self.stopped.pop().resume()

    @property
    def building(self) -> list[float]:
        """Processor time that each teacher spent on row blocks."""
        return [self.seconds[pid] - began for pid, began in self.began.items()]


def settings(out: Path, **more: object) -> BuildSettings:
    """A build of 96 tiles in 48 row blocks."""
    given: dict[str, object] = {
        "teacher": "resnet18", "weights": "random", "data": "digits:train", "limit": ROWS, "views": VIEWS,
        "tile_rows": TILE_ROWS, "input_size": 32, "device": "cpu", "workers": 0, "name": "same",
        "out": str(out), "codec": "joint-sketch",
    }  # fmt: skip
    return BuildSettings.model_validate(given | more)


def built(name: str, folder: Path, cluster: LocalCluster | None, **more: object) -> list[object]:
    """A row of the table, without the comparison."""
    out = folder / f"{name.replace(' ', '-').replace(',', '')}.zarr"
    kill_after = int(str(more.pop("kill_after"))) if "kill_after" in more else None
    said = io.StringIO()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    together = int(str(more.get("ray_teachers", 1)))
    watch = None if cluster is None else Watch(cluster, out / "commits", kill_after, together)
    if watch is not None:
        threading.Thread(target=watch.run, daemon=True).start()
    with BuildProgress(Console(file=said, width=200)) as progress:
        result = build(settings(out, **more), progress)
    wall = time.monotonic() - began
    if watch is not None:
        watch.ended.set()
    after = resource.getrusage(resource.RUSAGE_SELF)
    driver = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    actors = sum(watch.seconds.values()) if watch else 0.0
    retried = said.getvalue().count("is given to another")
    print(f"{name}: {wall:.0f} s, {result.manifest.cache_id}", flush=True)
    building = watch.building if watch else []
    each = " + ".join(f"{seconds:.0f}" for seconds in building)
    return [name, wall, driver, actors, each, max(building, default=""), len(building), retried]


def main() -> None:
    """Measure and write ``results/ray_build``."""
    torch.set_num_threads(1)
    os.environ.update(LOOPBACK)
    folder = Path(tempfile.mkdtemp(prefix="ray-build-"))
    try:
        rows = [built("one process", folder, None)]
        whole = objects(folder / "one-process.zarr")
        with local_cluster(2, 1) as cluster:
            ray = {"engine": "ray", "address": cluster.address}
            rows.append(built("one teacher", folder, cluster, ray_teachers=1, **ray))
            rows.append(built("two teachers", folder, cluster, ray_teachers=2, **ray))
            killed: dict[str, object] = {"ray_teachers": 2, "ray_decoders": 1, "kill_after": 48}
            rows.append(built("two teachers, one killed, and a decoder", folder, cluster, **killed, **ray))
        one = float(str(rows[1][_BUSIEST]))
        for row in rows:
            row.insert(_BUSIEST + 1, one / float(str(row[_BUSIEST])) if row[_BUSIEST] else "")
            same = objects(folder / f"{str(row[0]).replace(' ', '-').replace(',', '')}.zarr") == whole
            row.append("yes" if same else "NO")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    notes = (
        f"resnet18 with random weights at 32 px on {ROWS} digits x {VIEWS} views, joint-sketch: "
        f"{2 * ROWS // TILE_ROWS} tiles in {ROWS // TILE_ROWS} row blocks. The killed teacher got SIGKILL "
        "when half of the tiles were committed. The processor time of actors includes their imports, some "
        "12 s each; that of teachers on row blocks begins with the first one. Where two teachers build, the "
        "first was stopped until the second had a row block too, so that start-up is left out. The machine "
        "has two cores and was shared, so that `s` says little; one thread each. `one's / the busiest's` is "
        "how far two teachers shorten the work on cores of their own, at most 2."
    )
    columns = [
        "build", "s", "driver, processor s", "actors, processor s", "teachers on row blocks, processor s",
        "the busiest's", "one's / the busiest's", "teachers", "row blocks retried", "same bytes",
    ]  # fmt: skip
    write_results("ray_build", "A build on Ray, and a killed worker", columns, rows, notes)


if __name__ == "__main__":
    main()
