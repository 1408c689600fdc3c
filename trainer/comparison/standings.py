"""What came of each method: its runs, and their figures over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.comparison.methods import BASELINE, Method
from trainer.run.run_folder import Row, RunFolder


@dataclass(frozen=True)
class Failure:
    """Why a run gave no result."""

    reason: str
    """One line."""
    log: Path
    """What the run said."""

    def __str__(self) -> str:
        return f"{self.reason} (log: {self.log})"


@dataclass(frozen=True)
class RunResult:
    """What came of one run."""

    method: Method
    seed: int
    rows: tuple[Row, ...]
    """An epoch each."""
    failure: Failure | None = None

    @property
    def curve(self) -> list[float]:
        """Held-out top-1 after each epoch, in percent."""
        return [100 * row["val_top1"] for row in self.rows]

    @property
    def top1(self) -> float | None:
        """Held-out top-1 after the last epoch, in percent; None for a run that failed."""
        return None if self.failure or not self.rows else self.curve[-1]


@dataclass(frozen=True)
class Spread:
    """Of values over seeds."""

    mean: float
    std: float | None
    """Sample standard deviation (n - 1); None for a single value."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of no values."""
        if not values:
            return None
        return cls(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)

    def show(self, digits: int = 2, sign: str = "") -> str:
        """``93.41 ± 0.25``; ``sign="+"`` shows that of positive means as well."""
        mean = f"{self.mean:{sign}.{digits}f}"
        return mean if self.std is None else f"{mean} ± {self.std:.{digits}f}"


@dataclass(frozen=True)
class Standing:
    """One method's line of the table. Accuracies in percent, over the runs that did not fail."""

    method: Method
    runs: tuple[RunResult, ...]
    top1: Spread | None
    """Held out, after the last epoch."""
    best: float | None
    """Mean over the runs of each one's best epoch."""
    difference: Spread | None
    """To hard labels with the same seed, in points; None for hard labels themselves."""
    nll: Spread | None
    """Held out, after the last epoch, in nats."""
    epoch_s: float | None
    """Median seconds of an epoch's training."""

    @property
    def finished(self) -> list[RunResult]:
        """The runs that did not fail."""
        return [run for run in self.runs if run.failure is None]

    @property
    def is_baseline(self) -> bool:
        """Whether this is hard labels."""
        return self.method.name == BASELINE

    @property
    def shown_top1(self) -> str:
        """For people; says so where runs are missing."""
        if self.top1 is None:
            return "failed"
        missing = len(self.runs) - len(self.finished)
        return self.top1.show() + (f" ({len(self.finished)} of {len(self.runs)})" if missing else "")

    @property
    def problems(self) -> list[str]:
        """What went wrong, one line a reason."""
        seeds: dict[str, list[RunResult]] = {}
        for run in self.runs:
            if run.failure is not None:
                seeds.setdefault(run.failure.reason, []).append(run)
        return [
            f"seed {', '.join(str(run.seed) for run in runs)} failed: {runs[0].failure}"
            for runs in seeds.values()
        ]


def read_run(method: Method, seed: int, folder: Path, failure: Failure | None, log: Path) -> RunResult:
    """A run read back from its folder. One that ended with numbers that are none counts as failed."""
    rows = tuple(RunFolder(folder).read_metrics())
    if failure is None:
        for row in rows:
            if not (math.isfinite(row["train_loss"]) and math.isfinite(row.get("val_nll", 0.0))):
                failure = Failure(f"diverged: its loss is not finite after epoch {row['epoch']}", log)
                break
    return RunResult(method, seed, rows, failure)


def standings(methods: Sequence[Method], results: Sequence[RunResult]) -> list[Standing]:
    """A line for each method, the largest top-1 first, those without any at the end."""
    hard = {run.seed: run.top1 for run in results if run.method.name == BASELINE and run.top1 is not None}
    lines = [_standing(method, [run for run in results if run.method == method], hard) for method in methods]
    return sorted(lines, key=lambda line: -line.top1.mean if line.top1 else math.inf)


def _standing(method: Method, runs: Sequence[RunResult], hard: dict[int, float]) -> Standing:
    finished = [run for run in runs if run.top1 is not None]
    top1 = {run.seed: run.curve[-1] for run in finished}
    pairs = [value - hard[seed] for seed, value in top1.items() if seed in hard]
    seconds = [row["epoch_s"] for run in finished for row in run.rows]
    return Standing(
        method=method,
        runs=tuple(runs),
        top1=Spread.of(list(top1.values())),
        best=statistics.mean(max(run.curve) for run in finished) if finished else None,
        difference=None if method.name == BASELINE else Spread.of(pairs),
        nll=Spread.of([run.rows[-1]["val_nll"] for run in finished]),
        epoch_s=statistics.median(seconds) if seconds else None,
    )
