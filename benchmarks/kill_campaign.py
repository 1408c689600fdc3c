"""SIGKILLs at random instants of builds, merges and extensions on an S3 server on loopback.

Each kill is followed by the same command until it succeeds. It must then hold, object for object, what an
undisturbed run wrote, nothing else may lie there, and what somebody else put beside it must be as it was.
"""

from __future__ import annotations

import io
import itertools
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from rich.console import Console

from benchmarks.report import write_results
from cache_builder.build.pipeline import build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import BuildProgress
from cache_builder.exchange.extend import extend
from cache_builder.exchange.merge import merge
from cache_builder.exchange.settings import ExtendSettings, MergeSettings
from cache_builder.format.owned import CLAIM_KEY
from tests.cache_builder.photographs import write_folder
from tests.object_store import BUCKET, objects, s3_server

KILLS = 200
SEED = 20261201
LIMIT_S = 600.0
"""A command that takes longer is stuck."""
ATTEMPTS = 5
FOREIGN = {"photo.jpg": b"precious", "x.zarr-notes/readme": b"mine", "x.zarr.json": b"{}"}
"""What somebody else has beside the cache, by key; two of them begin as its own keys do."""
PHASES = ("calibration", "header", "tiles", "seal")
_POLL_S = 0.002
_PROCESSES = multiprocessing.get_context("forkserver")


def silently(run: Callable[[BuildProgress], object]) -> None:
    """What a process of the campaign does: a command, without its display."""
    torch.set_num_threads(1)
    with BuildProgress(Console(file=io.StringIO())) as progress:
        run(progress)


def build_cache(out: str, photos: Path, rows: str | None, like: str | None, share: bool) -> None:
    """``kdcache build``: 24 photographs, 9 views, six tiles in two view groups."""
    settings = BuildSettings(
        teacher=("tests.cache_builder.models:small",), data=f"imagefolder:{photos}", out=out, name="same",
        views=9, input_size=16, batch_size=24, workers=0, device="cpu", tile_rows=8, limit=24, seed=5,
        codec="class-sketch", top_k=5, tail_rank=8, tail_step=0.5, rows=rows, like=like, share=share,
    )  # fmt: skip
    silently(partial(build, settings))


def merge_caches(parts: tuple[str, ...], out: str) -> None:
    """``kdcache merge``."""
    silently(partial(merge, MergeSettings(parts=parts, out=out, name="same")))


def extend_cache(cache: str, out: str) -> None:
    """``kdcache extend`` to three views more."""
    silently(
        partial(
            extend, ExtendSettings(cache=cache, out=out, views=12, device="cpu", batch_size=24, workers=0)
        )
    )


@dataclass(frozen=True)
class Job:
    """A command that is killed: ``command(out)`` in ``processes`` processes at once."""

    name: str
    command: Callable[[str], None]
    tiles: int
    processes: int = 1


@dataclass
class Undisturbed:
    """What a job gives when nobody kills it, and how long its phases take."""

    objects: dict[str, bytes]
    seconds: dict[str, float]


@dataclass
class Tally:
    """What came of the kills of a job in a phase."""

    kills: int = 0
    reruns: list[int] = field(default_factory=list)
    identical: int = 0
    untouched: int = 0
    said: Counter[str] = field(default_factory=Counter)


class Campaign:
    """Kills commands on one server. Folders of the bucket that are done with are removed."""

    def __init__(self, client: Any, photos: Path, seed: int = SEED) -> None:
        self._client = client
        self._rng = np.random.default_rng(seed)
        self._count = 0
        whole, parts = self._prepared(photos)
        self.jobs = [
            Job("build", partial(build_cache, photos=photos, rows=None, like=None, share=False), 6),
            Job("build --share", partial(build_cache, photos=photos, rows=None, like=None, share=True), 6, 2),
            Job("merge", partial(merge_caches, parts), 6),
            Job("extend", partial(extend_cache, whole), 6),
        ]
        self._known = {job.name: self._undisturbed(job) for job in self.jobs}
        one, shared = (self._known[name].objects for name in ("build", "build --share"))
        assert one == shared == self._known["merge"].objects, "undisturbed builds differ"

    def _prepared(self, photos: Path) -> tuple[str, tuple[str, ...]]:
        """A whole cache, and two parts of one."""
        whole, first, second = (f"s3://{BUCKET}/made/{name}.zarr" for name in ("whole", "first", "second"))
        for out, rows, like in ((whole, None, None), (first, ":8", None), (second, "8:", first)):
            process = _started(partial(build_cache, photos=photos, rows=rows, like=like, share=False), out)
            process.join()
            assert process.exitcode == 0, f"{out} was not built"
        return whole, (first, second)

    def _undisturbed(self, job: Job) -> Undisturbed:
        with self._folder() as folder:
            out, began, seconds = f"{folder}/x.zarr", time.monotonic(), dict.fromkeys(PHASES, 0.0)
            processes = [_started(job.command, f"s3://{BUCKET}/{out}") for _ in range(job.processes)]
            while any(process.is_alive() for process in processes):
                now = time.monotonic()
                seconds[phase_of(out, job.tiles)] += now - began
                began = now
                time.sleep(_POLL_S)
            assert [process.exitcode for process in processes] == [0] * job.processes, f"{job.name} failed"
            return Undisturbed(objects(f"{out}/"), seconds)

    def kill(self, job: Job, phase: str, tally: Tally) -> None:
        """Kill a job at a random instant of a phase, run it again until it succeeds, look what it left.

        Nothing is counted where the job was through before that instant came.
        """
        with self._folder() as folder:
            out = f"{folder}/x.zarr"
            processes = [_started(job.command, f"s3://{BUCKET}/{out}") for _ in range(job.processes)]
            self._wait_for(phase, job, out, processes)
            victim = processes[int(self._rng.integers(job.processes))]
            victim.kill()
            victim.join()
            if victim.exitcode == 0:
                _ended(processes)
                return
            reruns = self._rerun(job, out, tally)
            _ended(processes)
            tally.kills += 1
            tally.reruns.append(reruns)
            differing = _differing(objects(f"{out}/"), self._known[job.name].objects)
            tally.identical += not differing
            tally.said.update(f"{key} differs" for key in differing)
            beside = {
                key: value for key, value in objects(f"{folder}/").items() if not key.startswith("x.zarr/")
            }
            tally.untouched += beside == FOREIGN

    def _wait_for(self, phase: str, job: Job, out: str, processes: list[Any]) -> None:
        order = PHASES.index(phase)
        while PHASES.index(phase_of(out, job.tiles)) < order and processes[0].is_alive():
            time.sleep(_POLL_S)
        time.sleep(float(self._rng.uniform(0, self._known[job.name].seconds[phase])))

    def _rerun(self, job: Job, out: str, tally: Tally) -> int:
        """How often the command ran until it succeeded."""
        for attempt in range(1, ATTEMPTS + 1):
            process = _started(job.command, f"s3://{BUCKET}/{out}")
            process.join(LIMIT_S)
            if process.exitcode == 0:
                return attempt
            tally.said["stuck" if process.exitcode is None else f"exit code {process.exitcode}"] += 1
            process.kill()
            process.join()
        return ATTEMPTS + 1

    @contextmanager
    def _folder(self) -> Iterator[str]:
        self._count += 1
        folder = f"trial-{self._count}"
        for key, data in FOREIGN.items():
            self._client.put_object(Bucket=BUCKET, Key=f"{folder}/{key}", Body=data)
        yield folder
        for key in _keys(f"{folder}/"):
            with suppress(Exception):
                self._client.delete_object(Bucket=BUCKET, Key=f"{folder}/{key}")


def phase_of(out: str, tiles: int) -> str:
    """Which of the phases an output is in, from what lies there."""
    keys = _keys(f"{out}/")
    commits = sum(key.startswith("commits/g") for key in keys)
    if "zarr.json" in keys:
        return "seal" if commits == tiles else "tiles"
    return "header" if CLAIM_KEY in keys else "calibration"


def _keys(prefix: str) -> set[str]:
    known = list(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys)
    return {str(name).removeprefix(prefix) for name in known if str(name).startswith(prefix)}


def _started(command: Callable[[str], None], out: str) -> Any:
    process = _PROCESSES.Process(target=command, args=(out,))
    process.start()
    return process


def _ended(processes: list[Any]) -> None:
    for process in processes:
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()


@contextmanager
def campaign() -> Iterator[Campaign]:
    """A campaign on a server of its own."""
    with tempfile.TemporaryDirectory() as folder, s3_server() as client:
        # After the server: the processes have its address from the one that they are forked from.
        _PROCESSES.set_forkserver_preload(["benchmarks.kill_campaign"])
        yield Campaign(client, write_folder(Path(folder) / "photos"))


def run(kills: int) -> None:
    """Kill so often, the jobs and their phases in turn; what came of it is written after each kill."""
    with campaign() as killing:
        places = [(job, phase) for job in killing.jobs for phase in PHASES]
        tallies = {(job.name, phase): Tally() for job, phase in places}
        for job, phase in itertools.cycle(places):
            tally = tallies[job.name, phase]
            killing.kill(job, phase, tally)
            if tally.kills:
                write_report(tallies, kills)
            if sum(one.kills for one in tallies.values()) >= kills:
                return


def write_report(tallies: dict[tuple[str, str], Tally], wanted: int) -> None:
    """The table of a campaign, which may not be through."""
    rows: list[list[object]] = [
        [
            *place, tally.kills, max(tally.reruns, default=0), tally.identical, tally.untouched,
            ", ".join(f"{said} ({count})" for said, count in tally.said.items()) or "-",
        ]
        for place, tally in tallies.items()
    ]  # fmt: skip
    done = sum(tally.kills for tally in tallies.values())
    columns = ["command", "killed in", "kills", "most runs until it succeeded", "byte-identical at the end"]
    columns += ["foreign objects untouched", "runs that failed"]
    notes = f"""
{done} SIGKILLs of {wanted} that were asked for (seed {SEED}), each at an instant drawn from the phase of an
undisturbed run, of moto's S3 server on loopback. 24 photographs, 9 views (extend: 12), six tiles in two view
groups; `build --share` is two processes, of which one is killed while the other goes on. After each kill the
same command runs until it succeeds; then every object of the cache is compared with those of an undisturbed
run (no lease, claim or other object may be left), and three objects that lie beside it, two of them with keys
that begin as the cache's do, with what they were.
"""
    write_results("kill_campaign", "Builders killed at random instants on S3", columns, rows, notes)


def _differing(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))


def main() -> None:
    """The whole campaign."""
    run(KILLS)


if __name__ == "__main__":
    main()
