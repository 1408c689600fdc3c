"""``report.md`` and ``curves.png``: what a run was and how it went, for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.run.config import RunConfig
from trainer.run.run_folder import BEST, LAST, METRICS, REPORT, TENSORBOARD, Row, RunFolder
from trainer.run.text_files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trainer.run.assemble import Run

CURVES = "curves.png"
_NOT_SHOWN = {"out", "data", "val_data", "cache", "student", "loss", "aux_head"}


def write_report(folder: RunFolder, run: Run) -> None:
    """Write both files; a run without a finished epoch gets none."""
    rows = folder.read_metrics()
    if not rows:
        return
    draw_curves(folder.path / CURVES, rows)
    weights = sum(parameter.numel() for parameter in run.student.parameters())
    write_text(folder.path / REPORT, report_text(folder.name, run.config, rows, weights))


def report_text(out: str, config: RunConfig, rows: Sequence[Row], weights: int) -> str:
    """The report as Markdown."""
    settings = config.settings
    parts = [
        f"# {settings.student} on {settings.data}",
        _summary(config, rows, weights),
        "## Result",
        _table(
            ("epoch", "held-out top-1", "top-5", "NLL", "training top-1", "agreement with teacher"),
            _result_rows(rows),
        ),
        f"![curves]({CURVES})",
        "## Objective",
        _objective(config),
        "## Settings",
        _table(("setting", "value"), _settings(config)),
        "## Go on",
        _commands(out, config),
    ]
    return "\n\n".join(parts) + "\n"


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """Accuracy, losses, held-out NLL and learning rate over the epochs, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    (accuracy, losses), (nll, rate) = axes
    for name, key in (
        ("training", "train_top1"),
        ("held out", "val_top1"),
        ("agreement with teacher", "train_agreement"),
    ):
        _curve(accuracy, rows, key, name, scale=100)
    for key in _term_keys(rows):
        _curve(losses, rows, key, key.removeprefix("train_"))
    _curve(nll, rows, "val_nll", "held out")
    _curve(rate, rows, "lr", "learning rate")
    _dress(accuracy, "top-1, %")
    _dress(losses, "training loss and its terms, nats")
    _dress(nll, "held-out NLL, nats")
    _dress(rate, "learning rate")
    making = path.with_name(f".{path.name}.partial")
    figure.savefig(making, dpi=120, format="png")
    pyplot.close(figure)
    making.replace(path)


_STYLES = {
    "training": {"color": "#8c96a3", "linestyle": "--"},
    "held out": {"color": "#1f77b4"},
    "agreement with teacher": {"color": "#2ca02c", "linestyle": ":"},
    "loss": {"color": "#222222"},
    "learning rate": {"color": "#9467bd"},
}


def _curve(axes: Axes, rows: Sequence[Row], key: str, name: str, scale: float = 1.0) -> None:
    points = [(row["epoch"], scale * row[key]) for row in rows if key in row]
    if points:
        style: dict[str, Any] = {"linewidth": 2, **_STYLES.get(name, {})}
        # A single point draws no line.
        marker = "o" if len(points) == 1 else ""
        axes.plot(*zip(*points, strict=True), label=name, marker=marker, **style)


def _dress(axes: Axes, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if not axes.lines:
        axes.text(
            0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color="#888888"
        )
    elif len(axes.lines) > 1:
        axes.legend(frameon=False)


def _term_keys(rows: Sequence[Row]) -> list[str]:
    """The objective, then its terms."""
    measured = {"train_loss", "train_top1", "train_agreement"}
    terms = [key for key in rows[-1] if key.startswith("train_") and key not in measured]
    return ["train_loss", *terms] if len(terms) > 1 else ["train_loss"]


def _summary(config: RunConfig, rows: Sequence[Row], weights: int) -> str:
    teachers = " ".join(
        f"Teacher: {facts.teacher}, from cache `{facts.name}` (id `{facts.cache_id}`)."
        for facts in config.caches
    )
    head = f" Auxiliary head: `{config.settings.aux_head}`." if config.settings.aux_head else ""
    return (
        f"{weights:,} weights, {config.classes} classes.{head} Training data: {config.data_in_words}. "
        f"{teachers or 'No teacher.'} kdcache {config.product_version}."
    )


def _result_rows(rows: Sequence[Row]) -> Iterable[tuple[str, ...]]:
    shown = {"last": rows[-1]}
    if "val_top1" in rows[-1]:
        shown = {"best": max(rows, key=lambda row: float(row.get("val_top1", -1.0))), **shown}
    for name, row in shown.items():
        percents = [
            _percent(row.get(key)) for key in ("val_top1", "val_top5", "train_top1", "train_agreement")
        ]
        nll = f"{row['val_nll']:.4f}" if "val_nll" in row else "–"
        yield f"{row['epoch']} ({name})", percents[0], percents[1], nll, percents[2], percents[3]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _objective(config: RunConfig) -> str:
    text = f"`{' + '.join(map(str, config.objective))}`"
    if config.objective_source:
        text += f": the published {config.objective_benchmark} objective; {config.objective_source}."
    return text


def _settings(config: RunConfig) -> Iterable[tuple[str, str]]:
    for name, value in config.settings.model_dump(mode="json").items():
        if name not in _NOT_SHOWN and value is not None:
            yield name, f"`{value}`"
    yield "view recipe", f"`{config.view_recipe.configuration}`"


def _commands(out: str, config: RunConfig) -> str:
    val_data = config.settings.val_data or "SPEC"
    lines = [
        f"kdtrain eval {shlex.quote(out)} --data {shlex.quote(val_data)}",
        f"tensorboard --logdir {shlex.quote(f'{out}/{TENSORBOARD}')}",
    ]
    files = f"`{BEST}` and `{LAST}` hold the weights, `{METRICS}` one JSON object an epoch."
    return "```sh\n" + "\n".join(lines) + f"\n```\n\n{files}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
