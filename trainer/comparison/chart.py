"""The picture of a comparison: what each method reached, and how the best got there."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trainer.comparison.standings import Standing

_WIDTH, _ROW, _CURVES = 10.0, 0.27, 4.2
"""Inches: of the picture, of a method's row, of the curves."""
_COLOURS = ("#1f77b4", "#d95f02", "#2ca02c", "#9467bd", "#c2185b", "#17a2b8")
"""Of the best methods, in both panels."""
_HARD, _OTHER, _FAILED = "#222222", "#8c96a3", "#b00020"
_FAR = 6.0
"""A method so many times further below the median than the best is above it stands at the edge."""
_LEAST_SPAN = 1.0
"""Percentage points that an axis of accuracies shows at least."""
_TALL = 20
"""With so many methods the figures of the axis stand above them as well."""


def draw_comparison(path: Path, table: Sequence[Standing], held_out: str) -> None:
    """A row of dots for each method, and held-out top-1 over the epochs, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [line for line in table if line.top1 is not None]
    rows = _ROW * max(len(table), 4) + 1.0
    figure, (dots, curves) = pyplot.subplots(
        2, 1, figsize=(_WIDTH, rows + _CURVES), height_ratios=(rows, _CURVES), layout="constrained"
    )
    for axes in (dots, curves):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    colours = _colours(shown)
    _draw_rows(dots, table)
    if shown:
        _draw_dots(dots, table, colours)
        _draw_curves(curves, [line for line in shown if line.method.label in colours], colours)
    dots.set_title(f"top-1 on {held_out} after the last epoch, %", loc="left", fontsize=11)
    which = "all methods" if len(colours) == len(shown) else f"the best {len(_COLOURS)} and hard labels"
    curves.set_title(f"{which} over the epochs, mean of the seeds, %", loc="left", fontsize=11)
    curves.set_xlabel("epoch")
    making = path.with_name(f".{path.name}.partial")
    figure.savefig(making, dpi=120, format="png")
    pyplot.close(figure)
    making.replace(path)


def _colours(shown: Sequence[Standing]) -> dict[str, str]:
    """By label: the best methods' own, hard labels'; the others are missing."""
    best = [line.method.label for line in shown if not line.is_baseline][: len(_COLOURS)]
    hard = {line.method.label: _HARD for line in shown if line.is_baseline}
    return dict(zip(best, _COLOURS, strict=False)) | hard


def _draw_rows(axes: Axes, table: Sequence[Standing]) -> None:
    """Who they are and what they reached, the best on top."""
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_yticks(range(len(table)), [line.method.label for line in table], fontsize=9)
    axes.tick_params(labeltop=len(table) >= _TALL, top=len(table) >= _TALL)
    for place, (line, label) in enumerate(zip(table, axes.get_yticklabels(), strict=True)):
        label.set_fontweight("bold" if line.is_baseline else "normal")
        axes.text(
            1.01, place, line.shown_top1, transform=axes.get_yaxis_transform(), va="center", fontsize=9,
            color=_FAILED if line.problems else "black",
        )  # fmt: skip


def _draw_dots(axes: Axes, table: Sequence[Standing], colours: dict[str, str]) -> None:
    """Dots are means, whiskers standard deviations, faint dots seeds."""
    low, high = _limits(table)
    axes.set_xlim(low, high)
    for place, line in enumerate(table):
        if line.top1 is None:
            continue
        colour = colours.get(line.method.label, _OTHER)
        if line.is_baseline:
            axes.axvline(line.top1.mean, color=_HARD, linewidth=1, linestyle="--", zorder=0)
        if line.top1.mean < low:
            axes.plot(low, place, marker="<", color=colour, markersize=8, clip_on=False)
            continue
        seeds = [run.curve[-1] for run in line.finished]
        axes.plot(seeds, [place] * len(seeds), "o", color=colour, alpha=0.3, markersize=5, mew=0)
        axes.errorbar(
            line.top1.mean, place, xerr=line.top1.std or 0.0, fmt="o", color=colour, markersize=6,
            elinewidth=1.6, capsize=3,
        )  # fmt: skip


def _draw_curves(axes: Axes, shown: Sequence[Standing], colours: dict[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    settled: list[float] = []
    for line in shown:
        mean = [statistics.mean(values) for values in zip(*(run.curve for run in line.finished), strict=True)]
        settled += mean[len(mean) // 3 :]
        axes.plot(
            range(1, len(mean) + 1), mean, color=colours[line.method.label], label=line.method.label,
            linewidth=2, linestyle="--" if line.is_baseline else "-", marker="o" if len(mean) == 1 else "",
        )  # fmt: skip
        axes.set_xlim(0.5 if len(mean) == 1 else 1, max(len(mean), 1.5))
    # The first third of the epochs is steep, and would flatten what matters.
    margin = max(0.06 * (max(settled) - min(settled)), _LEAST_SPAN / 4)
    axes.set_ylim(min(settled) - margin, max(settled) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def _limits(table: Sequence[Standing]) -> tuple[float, float]:
    """What the axis shows, in percent: a method far below all others is cut off."""
    spreads = [line.top1 for line in table if line.top1 is not None]
    ends = [run.curve[-1] for line in table for run in line.finished]
    for spread in spreads:
        ends += [spread.mean - (spread.std or 0.0), spread.mean + (spread.std or 0.0)]
    middle, high = statistics.median(spread.mean for spread in spreads), max(ends)
    floor = middle - _FAR * max(high - middle, _LEAST_SPAN)
    low = min(end for end in ends if end >= floor)
    margin = max(0.04 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    return low - margin, high + margin
