"""Tables and picture of ``benchmarks.accuracy``: means over seeds, paired differences with their intervals.

    python -m benchmarks.accuracy --runs 0        draws them anew from ``results/accuracy_runs.json``

A difference is that of two students of one seed; its interval of 95 % is that of the t distribution.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from scipy.stats import t as student_t

from benchmarks.accuracy_data import FEWER_SAMPLES, HELD_OUT, MOST_VIEWS, SAMPLES
from benchmarks.accuracy_students import EPOCHS, LOSSES, REAL_EPOCHS, TUNED_EPOCHS
from benchmarks.live_logits import VIEWS
from benchmarks.report import RESULTS, write_results

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = dict[str, Row]
RUNS = RESULTS / "accuracy_runs.json"
TITLE = "What a record costs a student"
STUDIES = {
    "glyphs": "dense logits",
    "views": f"dense logits, {MOST_VIEWS} views",
    "real": "dense logits",
    "scratch": "dense logits",
}
"""By name: what students are compared with."""
ALL_LOSSES = "all losses"
"""Differences of all losses of a study together."""

_COLUMNS = ["set", "loss", "student learns from", "bytes a view", "seeds", "top-1 %", "to dense", "KL",
            "KL to dense"]  # fmt: skip


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

    def told(self, digits: int) -> str:
        """In words, with so many digits after the point."""
        half = f" ± {self.half:.{digits}f}" if math.isfinite(self.half) else ""
        return f"{self.mean:+.{digits}f}{half}"


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
    difference: Difference | None
    kl: float | None = None
    kl_difference: Difference | None = None

    def cells(self) -> list[object]:
        """The row of the table."""
        seeds = len(self.top1) or (self.difference.pairs if self.difference else 0)
        top1 = round(float(np.mean(self.top1)), 1) if self.top1 else "-"
        kl = "-" if self.kl is None else f"{self.kl:.3f}"
        told = [self._told(self.difference, 1), kl, self._told(self.kl_difference, 3)]
        return [self.study, self.loss, self.teaching, round(self.size, 1), seeds, top1, *told]

    def _told(self, difference: Difference | None, digits: int) -> str:
        """A dash for what others are compared with."""
        is_base = self.teaching == STUDIES[self.study]
        return "-" if is_base or difference is None else difference.told(digits)


def lines_of(rows: Iterable[Row]) -> list[Line]:
    """Every teaching of every study and loss, in the order of the first rows."""
    kept = [Kept.of(row) for row in rows]
    base = {(k.study, k.loss, k.seed): k for k in kept if k.teaching == STUDIES[k.study]}
    groups: dict[tuple[str, str, str], list[Kept]] = {}
    for one in kept:
        # Labels alone have no loss; they are shown beside the first one.
        groups.setdefault((one.study, one.loss or next(iter(LOSSES)), one.teaching), []).append(one)
    lines = [_line(found, [(one, base.get((one.study, loss, one.seed))) for one in found], loss)
             for (_, loss, _), found in groups.items()]  # fmt: skip
    return sorted(lines, key=_order)


def _line(found: list[Kept], pairs: list[tuple[Kept, Kept | None]], loss: str) -> Line:
    """``pairs``: each with what it is compared with, where that has been run."""
    both = [(one.row, other.row) for one, other in pairs if other]
    kls = [one.row["kl"] for one in found if "kl" in one.row]
    return Line(
        study=found[0].study,
        loss=loss,
        teaching=found[0].teaching,
        size=float(np.median([one.row["bytes"] for one in found])),
        top1=tuple(100 * one.row["top1"] for one in found),
        difference=Difference.of([_points(one, other) for one, other in both]),
        kl=float(np.mean(kls)) if kls else None,
        kl_difference=Difference.of([one["kl"] - other["kl"] for one, other in both if "kl" in one]),
    )


def over_all_losses(rows: Iterable[Row], study: str = "glyphs") -> list[Line]:
    """The pairs of all losses of a study together, for what students of several losses learned from."""
    kept = [one for one in map(Kept.of, rows) if one.study == study]
    base = {(one.loss, one.seed): one for one in kept if one.teaching == STUDIES[study]}
    groups: dict[str, list[Kept]] = {}
    for one in kept:
        if one.teaching != STUDIES[study] and (one.loss, one.seed) in base:
            groups.setdefault(one.teaching, []).append(one)
    several = [found for found in groups.values() if len({one.loss for one in found}) > 1]
    lines = [
        _line(found, [(one, base[one.loss, one.seed]) for one in found], ALL_LOSSES) for found in several
    ]
    # Means of students of different losses say nothing.
    return sorted((replace(line, top1=(), kl=None) for line in lines), key=_order)


def _points(one: Row, other: Row) -> float:
    return float(100 * (one["top1"] - other["top1"]))


def _order(line: Line) -> tuple[int, int, int, float]:
    """Studies, losses, ours after dense logits and before the others, by size."""
    kinds = ("hard", "dense", "ours", "top")
    kind = next(index for index, name in enumerate(kinds) if line.teaching.startswith(name))
    size = float(_views(line)) if line.study == "views" else line.size
    loss = [*LOSSES, ALL_LOSSES].index(line.loss)
    return list(STUDIES).index(line.study), loss, kind, size


def write(rows: Rows) -> None:
    """Keep the rows, and write the tables and the picture."""
    kept = sorted(rows.values(), key=lambda row: str(row["key"]))
    RUNS.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept) + "\n]\n")
    lines = [*lines_of(kept), *over_all_losses(kept), *over_all_losses(kept, "real")]
    lines.sort(key=_order)
    write_results("accuracy", TITLE, _COLUMNS, [line.cells() for line in lines], _notes())
    _write_short(lines)
    _plot(lines)


def _notes() -> str:
    return (
        f"glyphs: wide teacher, 482 classes; {SAMPLES:,} training pictures x {VIEWS} views, {EPOCHS} "
        "epochs, .9 of the loss + .1 cross-entropy with labels (mse divided by the logits' variance); "
        f"top-1 on {HELD_OUT:,} pictures of other fonts. views: {FEWER_SAMPLES:,} of the pictures, "
        f"{MOST_VIEWS} epochs, compared with a view of its own for every epoch. real: EfficientNet-Lite0 "
        f"and its 1,000 classes, real pictures x {VIEWS} views without labels, {TUNED_EPOCHS} epochs of the "
        "loss alone for the last layers of a network that was trained before and sees 64 pixels; scratch: "
        f"{REAL_EPOCHS} epochs of a small network from nothing. There top-1 is agreement with the live "
        "teacher on pictures of other origins, KL the divergence from it at T = 1 in nats. Differences to "
        "dense logits are paired by seed, in points, ± half of the 95 % interval; those of all losses are "
        "pairs of the same loss and seed."
    )


def _write_short(lines: list[Line]) -> None:
    """What README shows: kd at T = 4."""
    shown = [line.cells() for line in lines if line.study in ("glyphs", "real") and line.loss == "kd T=4"]
    write_results("accuracy_short", TITLE, _COLUMNS, shown, f"From `accuracy.md`: kd at T = 4.\n\n{_notes()}")


@dataclass(frozen=True)
class Panel:
    """An axis of the picture."""

    title: str
    kinds: dict[str, list[Line]]
    """What is drawn as one line of points, by name."""
    thin: tuple[str, ...] = ()
    """Those that are drawn without intervals."""
    over_views: bool = False
    divergence: bool = False
    """Whether KL is drawn in the place of top-1."""

    def points(self, name: str) -> list[tuple[float, float, float]]:
        """Place, difference and half of its interval."""
        found = [
            (
                _views(line) if self.over_views else line.size,
                line.kl_difference if self.divergence else line.difference,
            )
            for line in self.kinds[name]
        ]
        return sorted((x, d.mean, d.half) for x, d in found if d and math.isfinite(d.half))


def _panels(lines: list[Line]) -> list[Panel]:
    """One for each study at kd T = 4, and some for the other losses."""

    def of(study: str, loss: str) -> dict[str, list[Line]]:
        return _by_kind([line for line in lines if line.study == study], loss)

    def losses(study: str) -> dict[str, list[Line]]:
        together = {f"{kind}, {ALL_LOSSES}": found for kind, found in of(study, ALL_LOSSES).items()}
        ours = {loss: of(study, loss).get("ours", []) for loss in LOSSES}
        return ours | together if together else {}

    first, thin = "kd T=4", tuple(LOSSES)
    return [
        Panel("482 characters, kd at T = 4", of("glyphs", first)),
        Panel("482 characters, each loss", losses("glyphs"), thin),
        Panel(f"482 characters, recorded views, {MOST_VIEWS} epochs", of("views", first), over_views=True),
        Panel("an ImageNet teacher, kd at T = 4", of("real", first)),
        Panel("an ImageNet teacher, kd at T = 4", of("real", first), divergence=True),
        Panel("an ImageNet teacher, each loss", losses("real"), thin),
        Panel("an ImageNet teacher, student from nothing", of("scratch", first), divergence=True),
    ]


def _plot(lines: list[Line]) -> None:
    """Every panel that has something to show."""
    panels = [panel for panel in _panels(lines) if any(len(panel.points(name)) > 1 for name in panel.kinds)]
    columns = 2 if len(panels) <= 4 else 3
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.7 * columns, 4.6 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw(axis, panel)
    figure.tight_layout()
    figure.savefig(RESULTS / "accuracy.png", dpi=80)
    plt.close(figure)


def _kind(line: Line) -> str:
    """The name of its line in the picture."""
    if line.teaching.startswith("ours"):
        return "ours"
    if line.teaching.startswith("top"):
        return "top K, even tail"
    return line.teaching if line.study != "views" else "dense logits"


def _by_kind(lines: list[Line], loss: str) -> dict[str, list[Line]]:
    """Those of a loss that are points of one line together; labels alone are no record."""
    kinds: dict[str, list[Line]] = {}
    for line in lines:
        if line.size and line.loss == loss:
            kinds.setdefault(_kind(line), []).append(line)
    return kinds


def _draw(axis: Axes, panel: Panel) -> None:
    for index, name in enumerate(panel.kinds):
        if not (points := panel.points(name)):
            continue
        x, mean, half = zip(*points, strict=True)
        if name in panel.thin:
            axis.plot(x, mean, linewidth=0.8, marker=".", label=name)
        else:
            # Intervals that lie over one another are not told apart.
            aside = [place * 1.03**index for place in x]
            axis.errorbar(aside, mean, half, marker="o", capsize=3, label=name)
    axis.axhline(0, color="black", linewidth=0.8)
    what = "KL at T = 1, nats," if panel.divergence else "points of top-1"
    base = "a view for every epoch" if panel.over_views else "dense logits"
    axis.set(title=panel.title, xscale="log", ylabel=f"{what} to {base}, 95 % interval")
    axis.set_xlabel("recorded views" if panel.over_views else "bytes per view on disk")
    if panel.divergence:
        axis.set_yscale("symlog", linthresh=0.01)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _views(line: Line) -> int:
    return int(line.teaching.split(", ")[-1].split()[0])
