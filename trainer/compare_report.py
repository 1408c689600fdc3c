"""The results of a comparison: one line a method, as a table for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.checkpoint import write_text
from trainer.compare_chart import draw_comparison
from trainer.compare_plan import Comparison
from trainer.methods import BASELINE, Method
from trainer.run_folder import METRICS, Row, RunFolder

TABLE, CSV, RESULTS, CHART = "compare.md", "compare.csv", "results.json", "compare.png"
_NOT_SHOWN = {
    *("out", "loss", "seed", "device", "precision", "workers", "fetch", "patience_s", "checkpoint_minutes"),
    "tensorboard",
}
"""What differs between the runs, or has no influence on them."""
_HEAD = ("method", "top-1 %", "to hard labels", "best %", "NLL", "s/epoch", "runs")


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


def write_results(out: Path, plan: Comparison, jobs: int, table: Sequence[Standing]) -> None:
    """All four files. ``jobs``: how many runs shared the machine."""
    write_text(out / CSV, csv_text(table))
    write_text(out / RESULTS, json.dumps([_record(line) for line in table], indent=1, allow_nan=False))
    write_text(out / TABLE, markdown(out, plan, jobs, table))
    draw_comparison(out / CHART, table, plan.baseline.settings.val_data or "held-out data")


def print_table(table: Sequence[Standing], console: Console) -> None:
    """The table in plain columns; under a method stands what failed."""
    rows = [_HEAD, *map(_cells, table)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, line in zip(rows, (None, *table), strict=True):
        name, *figures = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        style = "bold" if line is None or line.is_baseline else ""
        _say(console, "  ".join([name, *figures]).rstrip(), style)
        for problem in line.problems if line else ():
            _say(console, f"    {problem}", "red")


def _say(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def csv_text(table: Sequence[Standing]) -> str:
    """The table for programs: numbers as they are, empty where there are none."""
    text = io.StringIO()
    records = [_record(line) for line in table]
    columns = [name for name in records[0] if name != "runs"]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def markdown(out: Path, plan: Comparison, jobs: int, table: Sequence[Standing]) -> str:
    """The table with what it is about."""
    settings = plan.baseline.settings
    head = [*_HEAD, "minimised", "what failed"]
    rows = [[*_cells(line), f"`{line.method.minimises}`", "; ".join(line.problems)] for line in table]
    if not any(line.problems for line in table):
        head, rows = head[:-1], [row[:-1] for row in rows]
    shown = settings.model_dump(mode="json", exclude=_NOT_SHOWN, exclude_none=True)
    parts = [
        f"# {len(table)} methods on {settings.data}",
        _summary(plan),
        _table(head, rows),
        _how_to_read(settings.val_data or "", jobs),
        f"![top-1 of each method, and over the epochs]({CHART})",
        "## Settings of all runs",
        _table(("setting", "value"), [(name, f"`{value}`") for name, value in shown.items()]),
        "## Sources of the objectives",
        "\n".join(f"- {_named(line)}: {line.method.source}" for line in table if line.method.source)
        or "All were written out.",
        f"Each run is a folder of `kdtrain`: `{out}/runs/METHOD/seed-N/`, with `report.md` and `{METRICS}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _named(line: Standing) -> str:
    return f"`{line.method.label}`"


def _cells(line: Standing) -> tuple[str, ...]:
    return (
        line.method.label,
        line.top1.show() if line.top1 else "failed",
        line.difference.show(sign="+") if line.difference else "–",
        f"{line.best:.2f}" if line.best is not None else "–",
        line.nll.show(3) if line.nll else "–",
        f"{line.epoch_s:.3g}" if line.epoch_s is not None else "–",
        f"{len(line.finished)}/{len(line.runs)}",
    )


def _summary(plan: Comparison) -> str:
    baseline, settings = plan.baseline, plan.baseline.settings
    teachers = "; ".join(f"{facts.teacher}, cache `{facts.name}`" for facts in baseline.caches)
    return (
        f"Student `{settings.student}`, {plan.seeds} seed(s) a method, {settings.epochs} epochs on "
        f"{baseline.samples:,} samples at {settings.image_size} px in {baseline.view_count} view(s) by "
        f"`{baseline.view_recipe.name}`. Taught by {teachers}. kdcache {plan.product_version}."
    )


def _how_to_read(val_data: str, jobs: int) -> str:
    return (
        f"Top-1 and NLL (nats) are those of the last epoch on `{val_data}`, mean ± sample standard deviation "
        "over seeds. The difference to hard labels is taken seed by seed: same initial weights, same views, "
        "same order. The best epoch is chosen on the held-out data itself and flatters. Seconds are the "
        f"median of all epochs' training, with {jobs} run(s) side by side on this machine."
    )


def _record(line: Standing) -> dict[str, Any]:
    return {
        "method": line.method.name,
        "minimises": line.method.minimises,
        "finished_runs": len(line.finished),
        **_both("top1_percent", line.top1),
        "best_top1_percent": _rounded(line.best),
        **_both("difference_points", line.difference),
        **_both("nll_nats", line.nll),
        "epoch_s": line.epoch_s,
        "failed": "; ".join(line.problems),
        "runs": [
            {
                "seed": run.seed,
                "top1_percent": _rounded(run.top1),
                "curve_percent": list(map(_rounded, run.curve)),
            }
            for run in line.runs
        ],
    }


def _both(name: str, spread: Spread | None) -> dict[str, float | None]:
    mean, std = (spread.mean, spread.std) if spread is not None else (None, None)
    return {name: _rounded(mean), f"{name}_std": _rounded(std)}


def _rounded(value: float | None) -> float | None:
    """Accuracies come from float32: what lies beyond is noise."""
    return None if value is None else round(value, 5)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
