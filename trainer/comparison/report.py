"""The results of a comparison: one line a method, as a table for people and for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.comparison.chart import draw_comparison
from trainer.comparison.plan import Comparison
from trainer.comparison.standings import Spread, Standing
from trainer.run.run_folder import METRICS
from trainer.run.text_files import write_text

TABLE, CSV, RESULTS, CHART = "compare.md", "compare.csv", "results.json", "compare.png"
_NOT_SHOWN = {
    *("out", "loss", "seed", "device", "precision", "workers", "fetch", "patience_s", "checkpoint_minutes"),
    "tensorboard",
}
"""What differs between the runs, or has no influence on them."""
_HEAD = ("method", "top-1 %", "to hard labels", "best %", "NLL", "s/epoch", "runs")


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
