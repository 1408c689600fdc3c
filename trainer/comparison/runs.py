"""``kdtrain compare``: the same student with each method, side by side where cores allow, and one table."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from trainer.comparison.children import Child, Children
from trainer.comparison.display import CompareDisplay
from trainer.comparison.folder import check_output, claimed
from trainer.comparison.plan import Comparison, Job, begin, plan_comparison
from trainer.comparison.report import write_results
from trainer.comparison.standings import Failure, RunResult, Standing, read_run, standings
from trainer.run.device import default_workers
from trainer.run.inputs import Inputs
from trainer.run.settings import TrainSettings
from trainer.run.stop import StopRequest

_POLL_S = 0.1


@dataclass(frozen=True)
class Share:
    """How the machine is divided."""

    jobs: int
    """Runs side by side."""
    threads: int
    """Of each run."""
    workers: int
    """Loader processes of each run."""


def compare(
    settings: TrainSettings,
    losses: str,
    seeds: int,
    jobs: int | None,
    display: CompareDisplay,
    inputs: Inputs | None = None,
) -> list[Standing]:
    """Train every method with every seed, or go on with that, and write the results; the best method first.

    ``settings``: of every run; its loss and seed are not looked at. ``jobs``: runs side by side, None = by
    cores. ``inputs``: of the settings, None = they are opened here. A run that fails is a part of the
    results. Raises :class:`ConfigError` for what no run could be given, and ``KeyboardInterrupt`` after a
    signal, once every run has written its checkpoint.
    """
    out = Path(settings.out)
    check_output(out)
    plan = plan_comparison(settings, losses, seeds, inputs)
    with claimed(out) as lock:
        begin(out, plan)
        share = share_machine(plan, jobs)
        runs = _Runs(settings, plan.jobs(out), share, lock, display)
        runs.finish_all()
        table = standings(plan.methods, runs.results())
        write_results(out, plan, share.jobs, table)
    return table


def share_machine(plan: Comparison, jobs: int | None, cores: int | None = None) -> Share:
    """As asked for, else a run on each core; on a GPU one after another."""
    settings = plan.baseline.settings
    cores = cores or _cores()
    if jobs is None:
        jobs = cores if settings.device == "cpu" else 1
    jobs = min(jobs, len(plan.methods) * plan.seeds)
    threads = max(cores // jobs, 1)
    # What a run alone would start, but within its share: beyond it, loaders take cores from other runs.
    workers = min(default_workers(settings.device, settings.image_size), threads - 1)
    return Share(jobs, threads, workers if settings.workers is None else settings.workers)


class _Runs:
    """Takes the runs to their ends."""

    def __init__(
        self, settings: TrainSettings, jobs: list[Job], share: Share, lock: int, display: CompareDisplay
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._share = share
        self._lock = lock
        self._display = display
        self._waiting = [job for job in jobs if not job.is_finished]
        self._running: dict[Job, Child] = {}
        self._failures: dict[Job, Failure] = {}

    def finish_all(self) -> None:
        """Return when every run ended; after a signal raise ``KeyboardInterrupt``, when all have stopped."""
        if not self._waiting:
            self._display.say(f"all {len(self._jobs)} runs are finished")
            return
        with StopRequest() as stop, self._display as display:
            display.start(len(self._jobs), self._done, self._share.jobs, self._share.threads, self._epochs())
            with Children() as children:
                while (self._waiting or self._running) and not stop():
                    self._start(children)
                    time.sleep(_POLL_S)
                    self._collect(children)
                    display.look(self._done, self._epochs)
                if stop() and len(children):
                    display.say(
                        f"{len(children)} running: they write their checkpoints and end; "
                        "a second Ctrl-C ends them at once"
                    )
            if stop():
                finished = sum(job.is_finished for job in self._jobs)
                raise stop.error(
                    f"stopped with {finished} of {len(self._jobs)} runs finished; the same command goes on "
                    "from there"
                )

    def results(self) -> list[RunResult]:
        """What came of every run."""
        return [self._result(job) for job in self._jobs]

    @property
    def _done(self) -> int:
        return len(self._jobs) - len(self._waiting) - len(self._running)

    def _epochs(self) -> tuple[int, int]:
        """Epochs done, and epochs in all, without runs that failed."""
        hopeful = [job for job in self._jobs if job not in self._failures]
        return sum(job.epochs_done for job in hopeful), len(hopeful) * self._settings.epochs

    def _start(self, children: Children) -> None:
        while self._waiting and len(self._running) < self._share.jobs:
            job = self._waiting.pop(0)
            words = run_words(self._settings, job, self._share.workers)
            self._running[job] = children.add(Child(words, job.log, self._share.threads, (self._lock,)))

    def _collect(self, children: Children) -> None:
        for job, child in list(self._running.items()):
            code = child.poll()
            if code is None:
                continue
            children.remove(child)
            del self._running[job]
            if code != 0:
                self._failures[job] = Failure(child.failure(), job.log)
            self._display.ended(job.name, self._result(job), self._done, self._epochs())

    def _result(self, job: Job) -> RunResult:
        return read_run(job.method, job.seed, job.folder, self._failures.get(job), job.log)


def run_words(settings: TrainSettings, job: Job, workers: int) -> list[str]:
    """The ``kdtrain`` command of one run: what was asked for, its own objective, seed and folder."""
    given = settings.model_dump(mode="json", include=settings.model_fields_set, exclude_none=True)
    own = {"loss": job.method.name, "seed": job.seed, "workers": workers, "out": job.folder}
    words = []
    for name, value in (given | own).items():
        if isinstance(value, bool):
            words += [flag(name)] if value else []
        else:
            for item in value if isinstance(value, list) else [value]:
                words += [flag(name), str(item)]
    return [*words, "--no-tensorboard", "--resume"]


def flag(field: str) -> str:
    """``batch_size`` is set by ``--batch-size``."""
    return f"--{field.replace('_', '-')}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
