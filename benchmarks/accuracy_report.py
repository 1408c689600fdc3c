"""Tables and picture of ``benchmarks.accuracy``: means over seeds, paired differences with their intervals.

    python -m benchmarks.accuracy --runs 0        draws them anew from ``results/accuracy_runs.json``

A difference is that of two students of one seed; its interval of 95 % is that of the t distribution.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from scipy.stats import t as student_t

from benchmarks.accuracy_data import FEWER_SAMPLES, HELD_OUT, MOST_VIEWS, SAMPLES
from benchmarks.accuracy_students import EPOCHS, LOSSES, REAL_EPOCHS
from benchmarks.live_logits import VIEWS
from benchmarks.report import RESULTS, write_results

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = dict[str, Row]
RUNS = RESULTS / "accuracy_runs.json"
TITLE = "What a record costs a student"
STUDIES = {"glyphs": "dense logits", "views": f"dense logits, {MOST_VIEWS} views", "real": "dense logits"}
"""By name: what students are compared with."""
ALL_LOSSES = "all losses"
"""Differences of all losses of a study together."""


def key_of(study: str, teaching: str, loss: str, seed: int) -> str:
    """What a row is kept under."""
    prefix = "" if study == "glyphs" else f"{study}: "
    return " | ".join([prefix + teaching, loss, str(seed)]).replace("  ", " ")


@dataclass(frozen=True)
class Kept:
    """A row with the parts of its key."""

    study: str
    teaching: str
    loss: str
    seed: int
    row: Row

    @classmethod
    def of(cls, row: Row) -> Kept:
        """Taken apart."""
        given, loss, seed = (part.strip() for part in row["key"].split("|"))
        study, _, teaching = given.rpartition(": ")
        return cls(study or "glyphs", teaching, loss, int(seed), row)


@dataclass(frozen=True)
class Difference:
    """Of students of the same seeds, in points of a percentage."""

    pairs: int
    mean: float
    half: float
    """Of the interval; infinite for one pair."""

    @classmethod
    def of(cls, paired: Sequence[float]) -> Difference | None:
        """None where there are no pairs."""
        if not paired:
            return None
        n = len(paired)
        spread = float(np.std(paired, ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        half = spread * float(student_t.ppf(0.975, n - 1)) if n > 1 else math.inf
        return cls(n, float(np.mean(paired)), half)

    def __str__(self) -> str:
        return f"{self.mean:+.1f}" + (f" ± {self.half:.1f}" if math.isfinite(self.half) else "")


@dataclass(frozen=True)
class Line:
    """The students of one study that learned the same way."""

    study: str
    loss: str
    teaching: str
    size: float
    """Bytes of a view."""
    top1: tuple[float, ...]
    """Percent, of each seed."""
    kl: float | None
    difference: Difference | None

    def cells(self) -> list[object]:
        """The row of the table."""
        measured: list[object] = [round(float(np.mean(self.top1)), 1) if self.top1 else "-"]
        pairs = self.difference.pairs if self.difference else 0
        size = round(self.size, 1)
        seeds = len(self.top1) or pairs
        return [self.study, self.loss, self.teaching, size, seeds, *measured, self.told, self.kl or "-"]

    @property
    def told(self) -> str:
        """The difference in words; a dash for what others are compared with."""
        return str(self.difference) if self.difference and self.teaching != STUDIES[self.study] else "-"


def lines_of(rows: Iterable[Row]) -> list[Line]:
    """Every teaching of every study and loss, in the order of the first rows."""
    kept = [Kept.of(row) for row in rows]
    base = {(k.study, k.loss, k.seed): k for k in kept if k.teaching == STUDIES[k.study]}
    groups: dict[tuple[str, str, str], list[Kept]] = {}
    for one in kept:
        # Labels alone have no loss; they are shown beside the first one.
        groups.setdefault((one.study, one.loss or next(iter(LOSSES)), one.teaching), []).append(one)
    lines = []
    for (study, loss, teaching), found in groups.items():
        paired = [_points(k, base[study, loss, k.seed]) for k in found if (study, loss, k.seed) in base]
        kls = [k.row["kl"] for k in found if "kl" in k.row]
        lines.append(
            Line(
                study,
                loss,
                teaching,
                float(np.median([k.row["bytes"] for k in found])),
                tuple(100 * k.row["top1"] for k in found),
                float(np.mean(kls)) if kls else None,
                Difference.of(paired),
            )
        )
    return sorted(lines, key=_order)


def over_all_losses(rows: Iterable[Row]) -> list[Line]:
    """Of glyphs: the pairs of all losses together, for what several losses learned from."""
    kept = [Kept.of(row) for row in rows]
    base = {(k.loss, k.seed): k for k in kept if k.study == "glyphs" and k.teaching == STUDIES["glyphs"]}
    paired: dict[str, list[float]] = {}
    sizes: dict[str, float] = {}
    losses: dict[str, set[str]] = {}
    for one in kept:
        if one.study == "glyphs" and one.teaching != STUDIES["glyphs"] and (one.loss, one.seed) in base:
            paired.setdefault(one.teaching, []).append(_points(one, base[one.loss, one.seed]))
            losses.setdefault(one.teaching, set()).add(one.loss)
            sizes[one.teaching] = one.row["bytes"]
    return [
        Line("glyphs", ALL_LOSSES, teaching, sizes[teaching], (), None, Difference.of(found))
        for teaching, found in paired.items()
        if len(losses[teaching]) > 1
    ]


def _points(one: Kept, other: Kept) -> float:
    return float(100 * (one.row["top1"] - other.row["top1"]))


def _order(line: Line) -> tuple[int, int, int, float]:
    """Studies, losses, ours after dense logits and before the others, by size."""
    kinds = ("hard", "dense", "ours", "top")
    kind = next(index for index, name in enumerate(kinds) if line.teaching.startswith(name))
    size = float(_views(line)) if line.study == "views" else line.size
    return list(STUDIES).index(line.study), list(LOSSES).index(line.loss), kind, size


def write(rows: Rows) -> None:
    """Keep the rows, and write the tables and the picture."""
    if not rows:
        return
    kept = sorted(rows.values(), key=lambda row: str(row["key"]))
    RUNS.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept) + "\n]\n")
    lines = lines_of(kept)
    together = over_all_losses(kept)
    columns = ["set", "loss", "student learns from", "bytes a view", "seeds", "top-1 %", "to dense", "KL"]
    write_results("accuracy", TITLE, columns, [line.cells() for line in [*lines, *together]], _notes())
    _write_short(lines, together)
    _plot(lines, together)


def _notes() -> str:
    return (
        f"glyphs: wide teacher, 482 classes; {SAMPLES:,} training pictures x {VIEWS} views, {EPOCHS} "
        "epochs, .9 of the loss + .1 cross-entropy with labels (mse divided by the logits' variance); "
        f"top-1 on {HELD_OUT:,} pictures of other fonts. views: {FEWER_SAMPLES:,} of the pictures, "
        f"{MOST_VIEWS} epochs, compared with a view of its own for every epoch. real: EfficientNet-Lite0 "
        f"and its 1,000 classes, real pictures x {VIEWS} views without labels, {REAL_EPOCHS} epochs of "
        "the loss alone; top-1 is agreement with the live teacher on pictures of other origins, KL the "
        "divergence from it at T = 1 in nats. Differences to dense logits are paired by seed, in points, "
        "± half of the 95 % interval; those of all losses are pairs of the same loss and seed."
    )


def _write_short(lines: list[Line], together: list[Line]) -> None:
    """What README shows: kd at T = 4."""
    del together
    table = []
    for line in lines:
        if line.loss == "kd T=4" and line.study != "views":
            table.append([line.cells()[i] for i in (0, 2, 3, 4, 5, 6, 7)])
    columns = ["set", "student learns from", "bytes a view", "seeds", "top-1 %", "to dense", "KL"]
    notes = f"From `accuracy.md`: kd at T = 4.\n\n{_notes()}"
    write_results("accuracy_short", TITLE, columns, table, notes)


def _plot(lines: list[Line], together: list[Line]) -> None:
    """Differences over bytes, one axis for each study, and one for the other losses."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 9))
    glyphs = [line for line in lines if line.study == "glyphs"]
    first = [line for line in glyphs if line.loss == "kd T=4"]
    _draw(axes[0, 0], "482 characters, kd at T = 4", _by_kind(first))
    others = {
        loss: [line for line in glyphs if line.loss == loss and _kind(line) == "ours"]
        for loss in LOSSES
        if loss != "kd T=4"
    }
    others |= {ALL_LOSSES: [line for line in together if _kind(line) == "ours"]}
    _draw(axes[0, 1], "482 characters, our records, other losses", others)
    views = [line for line in lines if line.study == "views"]
    _draw(axes[1, 0], f"recorded views, {MOST_VIEWS} epochs", _by_kind(views), over_views=True)
    real = [line for line in lines if line.study == "real" and line.loss == "kd T=4"]
    _draw(axes[1, 1], "real pictures, ImageNet teacher, kd at T = 4", _by_kind(real))
    figure.tight_layout()
    figure.savefig(RESULTS / "accuracy.png", dpi=90)
    plt.close(figure)


def _kind(line: Line) -> str:
    """The name of its line in the picture."""
    if line.teaching.startswith("ours"):
        return "ours"
    if line.teaching.startswith("top"):
        return "top K, even tail"
    return line.teaching if line.study != "views" else "dense logits"


def _by_kind(lines: list[Line]) -> dict[str, list[Line]]:
    """Those that are points of one line together; labels alone are no record."""
    kinds: dict[str, list[Line]] = {}
    for line in lines:
        if line.size:
            kinds.setdefault(_kind(line), []).append(line)
    return kinds


def _draw(axis: Axes, title: str, kinds: dict[str, list[Line]], over_views: bool = False) -> None:
    """A line of points with their intervals for each kind."""
    for index, (name, lines) in enumerate(kinds.items()):
        found = [(_views(line) if over_views else line.size, line.difference) for line in lines]
        # Intervals that lie over one another are not told apart.
        points = [(x * 1.03**index, d.mean, d.half) for x, d in found if d and math.isfinite(d.half)]
        if points:
            x, mean, half = zip(*sorted(points), strict=True)
            axis.errorbar(x, mean, half, marker="o", capsize=3, label=name)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(title=title, xscale="log", xlabel="recorded views" if over_views else "bytes per view on disk")
    base = "a view for every epoch" if over_views else "dense logits"
    axis.set_ylabel(f"points of top-1 to {base}, 95 % interval")
    axis.grid(alpha=0.3)
    if kinds:
        axis.legend(fontsize=8)


def _views(line: Line) -> int:
    return int(line.teaching.split(", ")[-1].split()[0])
