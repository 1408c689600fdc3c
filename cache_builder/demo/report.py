"""What the demo found: one table, one picture, and the commands to look around."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class StudentRun:
    """One training run, read back from its folder."""

    folder: Path
    curve: list[float]
    """Held-out top-1 after each epoch, 0..1."""

    @property
    def top1(self) -> float:
        """Held-out top-1 of the last epoch: no choosing of epochs on held-out data."""
        return self.curve[-1]


@dataclass(frozen=True)
class Outcome:
    """Everything the demo measured."""

    folder: Path
    teacher: StudentRun
    runs: dict[str, list[StudentRun]]
    seconds: dict[str, float]
    commands: list[str]
    samples: int
    views: int

    @property
    def gains(self) -> list[float]:
        """Distilled minus hard-label top-1 of each seed, in percentage points."""
        pairs = zip(self.runs["distilled"], self.runs["hard labels"], strict=True)
        return [100 * (distilled.top1 - hard.top1) for distilled, hard in pairs]

    def verdict(self) -> str:
        """One honest sentence."""
        gains = self.gains
        wins = sum(gain > 0 for gain in gains)
        mean = statistics.mean(gains)
        if mean > 0 and wins == len(gains):
            return f"The distilled student won on every seed, by {mean:.1f} points on average."
        if mean > 0:
            return (
                f"The distilled student won on {wins} of {len(gains)} seeds, by {mean:.1f} points on average."
            )
        return f"Distillation did NOT win here: {mean:+.1f} points, ahead on {wins} of {len(gains)} seeds."

    def rows(self) -> list[tuple[str, str, str]]:
        """Who, held-out top-1, what it learned from."""
        rows = [("teacher", f"{self.teacher.top1:.1%}", "hard labels of 1,197 digits")]
        source = {"hard labels": "labels", "distilled": "served teacher logits + labels"}
        for method, runs in self.runs.items():
            values = [100 * run.top1 for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            what = f"{source[method]} of {self.samples} digits, {len(runs)} seeds"
            rows.append((f"student, {method}", f"{statistics.mean(values):.1f} ± {spread:.1f} %", what))
        return rows


def read_run(folder: Path) -> StudentRun:
    """The held-out accuracy of a kdtrain run, from its ``metrics.jsonl``."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return StudentRun(folder, [line["val_top1"] for line in lines if "val_top1" in line])


def print_outcome(outcome: Outcome, console: Console) -> None:
    """The table, the times and where to look."""
    table = Table(title="\nHeld-out handwriting (600 digits)", title_justify="left")
    for title in ("", "top-1", "learned from"):
        table.add_column(title, justify="right" if title == "top-1" else "left")
    for row in outcome.rows():
        table.add_row(*row)
    console.print(table)
    console.print(f"[bold]{outcome.verdict()}[/]", highlight=False)
    console.print(f"All steps together: {sum(outcome.seconds.values()):.0f} s", highlight=False)
    console.print("\nLook around:", highlight=False)
    for command in look_around(outcome.folder):
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def look_around(folder: Path) -> list[str]:
    """Commands for the curious."""
    return [
        f"kdcache inspect {folder}/digits.zarr --sample 42",
        f"kdcache serve {folder}/digits.zarr        # then http://127.0.0.1:8000/docs",
        f"tensorboard --logdir {folder}/runs",
        f"less {folder}/report.md                   # and {folder}/curves.png",
    ]


def write_report(outcome: Outcome) -> None:
    """``report.md`` and ``curves.png`` in the demo's folder."""
    _plot(outcome)
    lines = [
        "# kdcache demo",
        "",
        outcome.verdict(),
        "",
        "| | held-out top-1 | learned from |",
        "|---|---|---|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in outcome.rows()]
    lines += ["", "![Held-out accuracy per epoch](curves.png)", "", "| step | seconds |", "|---|---|"]
    lines += [f"| {title} | {seconds:.1f} |" for title, seconds in outcome.seconds.items()]
    lines += ["", "## The commands that were run", "", "```", *outcome.commands, "```"]
    lines += ["", "## Look around", "", "```", *look_around(outcome.folder), "```", ""]
    (outcome.folder / "report.md").write_text("\n".join(lines))


def _plot(outcome: Outcome) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for (method, runs), colour in zip(outcome.runs.items(), ("#777777", "#1f77b4"), strict=True):
        epochs = range(1, len(runs[0].curve) + 1)
        for run in runs:
            axes.plot(epochs, [100 * value for value in run.curve], color=colour, alpha=0.3, linewidth=1)
        mean = [100 * statistics.mean(values) for values in zip(*(run.curve for run in runs), strict=True)]
        axes.plot(epochs, mean, color=colour, linewidth=2.2, label=f"student, {method}")
    axes.axhline(100 * outcome.teacher.top1, color="#d62728", linestyle="--", linewidth=1, label="teacher")
    axes.set(xlabel="epoch", ylabel="held-out top-1 (%)", title="Same student, same pixels, same seeds")
    settled = [run.curve[len(run.curve) // 2] for runs in outcome.runs.values() for run in runs]
    axes.set_ylim(bottom=max(0.0, 100 * min(settled) - 10))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(outcome.folder / "curves.png", dpi=130)
    pyplot.close(figure)
