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

ROWS, VIEWS, TILE_ROWS = 192, 16, 16
_LOOK_S = 0.2


@dataclass
class Watch:
    """The actors of a cluster: the processor time of each while it lived, and one that is killed."""

    cluster: LocalCluster
    commits: Path
    kill_after: int | None
    """Tiles after which one teacher is killed."""
    seconds: dict[int, float] = field(default_factory=dict)
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
            due = self.kill_after is not None and len(list(self.commits.glob("*.json"))) >= self.kill_after
            if due and self.killed is None and name.startswith("ray::Teacher.run"):
                process.send_signal(signal.SIGKILL)
                self.killed = process.pid
        except psutil.NoSuchProcess:
            return


def settings(out: Path, **more: object) -> BuildSettings:
    """A build of 24 tiles in twelve row blocks."""
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
    watch = None if cluster is None else Watch(cluster, out / "commits", kill_after)
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
    return [name, wall, driver, actors, len(watch.seconds) if watch else 0, retried]


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
            killed: dict[str, object] = {"ray_teachers": 2, "ray_decoders": 1, "kill_after": 12}
            rows.append(built("two teachers, one killed, and a decoder", folder, cluster, **killed, **ray))
        for row in rows:
            same = objects(folder / f"{str(row[0]).replace(' ', '-').replace(',', '')}.zarr") == whole
            row.append("yes" if same else "NO")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    notes = (
        f"resnet18 with random weights at 32 px on {ROWS} digits x {VIEWS} views, joint-sketch: "
        f"{2 * ROWS // TILE_ROWS} tiles in {ROWS // TILE_ROWS} row blocks. The killed teacher got SIGKILL "
        "when half of the tiles were committed. The processor time of actors includes their imports, some "
        "12 s each. The machine has two cores and was shared, so that times say little; one thread each. "
        "Where the actor processes are fewer than the teachers asked for, the build was over before the "
        "others had started: how it scales is for a longer build on an idle machine to say."
    )
    columns = [
        "build", "s", "driver, processor s", "actors, processor s", "actor processes", "row blocks retried",
        "same bytes",
    ]  # fmt: skip
    write_results("ray_build", "A build on Ray, and a killed worker", columns, rows, notes)


if __name__ == "__main__":
    main()
