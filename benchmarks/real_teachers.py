"""What a byte buys on real teachers, and the least that a byte can cost.

    python -m benchmarks real_teachers              pictures, networks and logits are made on the first run
    python -m benchmarks.real_teachers lite0 --only kdcache      some rows; prints, and writes nothing

Rows that ``results/real_teachers.json`` has are kept: remove it to measure all of them anew.

Every encoding of ``benchmarks.view_encodings`` is fitted to half of the samples, all their views, and
measured on the other half:

- *bytes* of a view on disk, as the columns of a store hold the records, in chunks of 4,096 rows. What is
  kept once per cache is told apart.
- *variance lost*: the squared error of the decoded logits over the square of the live logits about the mean
  of each class in the fitting half, both summed over samples, views and classes, after taking from the row of
  each view its own mean over the classes, of which no softmax knows.
- *TV*: half the L1 distance of softmax(logits / T), averaged.
- gradient cosines, as ``benchmarks.gradients`` measures them.

The bound is that of ``benchmarks.bound``, of the same halves, at the same variance lost: each view alone, and
all views of a sample together. The ratio of an encoding is its bytes over the joint bound of its own loss.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from benchmarks.bound import Bound, Spread
from benchmarks.encodings import Encoded, Floats
from benchmarks.fidelity import total_variation
from benchmarks.gradients import Gradients
from benchmarks.live_logits import VIEWS
from benchmarks.report import RESULTS, markdown_table, write_results
from benchmarks.teacher_views import TeacherViews, of_teacher
from benchmarks.view_encodings import ENCODINGS, Encoding
from cache_builder.calibration.fidelity import TEMPERATURES
from trainer.losses import LOSSES, Loss, make_loss

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen

TEACHERS = ("lite0", "narrow", "wide")
SHARES = (0.2, 0.1, 0.05, 0.02, 0.005)
"""Of the variance, at which bounds are told."""
JOINT_VIEWS = (4, VIEWS, 50)
SHORT = (
    "even tail, top 10",
    "even tail, top 50",
    "even tail, top 100",
    "class-sketch, 48 bytes",
    "class-sketch, 96 bytes",
    *(f"kdcache, {lose:g} lost" for lose in (0.2, 0.1, 0.05, 0.02, 0.01)),
    "all logits, fp16",
)
SHORT_LOSSES = ("kd T=1", "kd T=4", "dkd", "dist", "mse", "reverse_kl")
_LEAST_SHOWN = 1e-4
"""Of the variance lost, in the picture: what loses less is drawn there."""
_LEAST_BOUND = 1.0
"""Bytes of the bound, below which a ratio to it says nothing."""


@dataclass(frozen=True)
class Measured:
    """One encoding of one teacher's logits."""

    teacher: str
    encoding: str
    system: str
    settings: str
    size: float
    """Bytes per view."""
    header_bytes: int
    lost: float
    """Share of the variance."""
    bounds: tuple[float, float]
    """Bytes per view at the same loss: each view alone, and all views of a sample together."""
    tv: tuple[float, ...]
    """At each of ``TEMPERATURES``."""
    cosines: dict[str, float]
    """Of the gradient of each loss."""

    @property
    def ratio(self) -> float | None:
        """Bytes over the joint bound; None where that is next to nothing."""
        return self.size / self.bounds[1] if self.bounds[1] >= _LEAST_BOUND else None

    def cells(self) -> list[object]:
        """The row of the table."""
        sizes = [self.size, self.header_bytes / 1024, self.lost, *self.bounds, _or_dash(self.ratio)]
        name = f"{self.encoding} ({self.settings})" if self.settings else self.encoding
        return [self.teacher, name, *sizes, *self.tv, *self.cosines.values()]


class Ground:
    """A teacher's logits and what every encoding of them is measured with."""

    def __init__(self, views: TeacherViews) -> None:
        self.views = views
        self._fit, self._held = _centred(views.fit), _centred(views.held)
        self._mean = self._fit.mean(axis=(0, 1), dtype=np.float64)
        self._spread = Spread.of(self._fit, self._mean), Spread.of(self._held, self._mean)
        self._gradients = Gradients(views.batches, chosen_losses())

    @cached_property
    def alone(self) -> Bound:
        """Of each view without the others."""
        return Bound.alone(*self._spread)

    @cached_property
    def joint(self) -> Bound:
        """Of all the views that there are."""
        return self.jointly(self.views.held.shape[1])

    def jointly(self, views: int) -> Bound:
        """Of so many views of a sample."""
        return Bound.jointly(*self._spread, views)

    @property
    def between_views(self) -> float:
        """The share of the held-out variance that lies between the views of a sample."""
        return self._spread[1].between_views

    def lost(self, decoded: Floats) -> float:
        """The share of the variance that decoded logits [N, V, C] lack."""
        error = np.square(_centred(decoded) - self._held, dtype=np.float64).sum()
        return float(error / np.square(self._held - self._mean, dtype=np.float64).sum())

    def measured(self, encoding: Encoding) -> Measured:
        """Fit on the one half, measure on the other."""
        found = encoding.encode(self.views.fit, self.views.held)
        lost = self.lost(found.decoded)
        return Measured(
            teacher=self.views.name,
            encoding=encoding.name,
            system=encoding.system,
            settings=found.settings,
            size=found.bytes_per_view,
            header_bytes=found.header_bytes,
            lost=lost,
            bounds=(_bytes(self.alone, lost), _bytes(self.joint, lost)),
            tv=self._tv(found),
            cosines=self._gradients.cosines(self._shown(found.decoded)),
        )

    def _tv(self, found: Encoded) -> tuple[float, ...]:
        # One view after another: softmaxes of all of them at once take gigabytes.
        pairs = list(zip(self.views.held.swapaxes(0, 1), found.decoded.swapaxes(0, 1), strict=True))
        return tuple(
            float(np.mean([total_variation(live, ours, t) for live, ours in pairs])) for t in TEMPERATURES
        )

    def _shown(self, decoded: Floats) -> Floats:
        """Two views of the samples that gradients are compared on: [2, n, C]."""
        return decoded[: len(self.views.batches.labels), :2].swapaxes(0, 1)


def chosen_losses() -> dict[str, Loss]:
    """One of each family, by the names of the table's columns."""
    kd = {f"kd T={t:g}": make_loss("kd", {"temperature": t}) for t in (1.0, 4.0)}
    return kd | {name: LOSSES[name]() for name in ("dkd", "dist", "mse", "standardized", "reverse_kl")}


def _centred(logits: Floats) -> Floats:
    found: Floats = logits - logits.mean(axis=-1, keepdims=True)
    return found


def _bytes(bound: Bound, lost: float) -> float:
    return bound.bytes_per_view(lost) if 0 < lost < 1 else 0.0


def bound_rows(ground: Ground, rows: list[Measured]) -> list[list[object]]:
    """At each of ``SHARES`` the bounds, and what ours takes there."""
    found: list[list[object]] = []
    for share in SHARES:
        ours = size_at(share, [row for row in rows if row.system == "kdcache"])
        bounds = [ground.jointly(views).bytes_per_view(share) for views in JOINT_VIEWS]
        ratio = None if ours is None else ours / ground.joint.bytes_per_view(share)
        shown = [share, ground.alone.bytes_per_view(share), *bounds, _or_dash(ours), _or_dash(ratio)]
        found.append([ground.views.name, *shown])
    return found


def size_at(share: float, rows: list[Measured]) -> float | None:
    """Bytes at which a system loses so much, read on logarithms between the rows around it.

    Rows that lose more than a smaller one are left out. None beyond what was measured.
    """
    best: list[Measured] = []
    for row in sorted(rows, key=lambda row: row.size):
        if not best or row.lost < best[-1].lost:
            best.append(row)
    lost, size = np.log([[row.lost, row.size] for row in reversed(best)]).T
    inside = lost[0] <= np.log(share) <= lost[-1]
    return float(np.exp(np.interp(np.log(share), lost, size))) if inside else None


def _or_dash(value: float | None) -> float | str:
    return "-" if value is None else value


def main() -> None:
    """Measure, print and keep the table and the picture."""
    grounds, rows, bounds, kept = [], [], [], _kept()
    for teacher in TEACHERS:
        ground = Ground(of_teacher(teacher))
        missing = [encoding for encoding in ENCODINGS if (teacher, encoding.name) not in kept]
        kept |= {(teacher, row.encoding): row for row in measured(ground, missing)}
        rows += [kept[teacher, encoding.name] for encoding in ENCODINGS]
        bounds += bound_rows(ground, rows[-len(ENCODINGS) :])
        grounds.append(ground)
    write(grounds, rows, bounds)
    write_short(rows)
    plot(grounds, rows)


def _kept() -> dict[tuple[str, str], Measured]:
    """Rows that were measured before; without the file of results all are measured anew."""
    path = RESULTS / "real_teachers.json"
    if not path.is_file():
        return {}
    rows = [Measured(**row) for row in json.loads(path.read_text())["measured"]]
    return {(row.teacher, row.encoding): row for row in rows}


def measured(ground: Ground, encodings: Sequence[Encoding] = ENCODINGS) -> list[Measured]:
    """Encodings of a teacher; each is told when it is there."""
    rows = []
    for encoding in encodings:
        rows.append(ground.measured(encoding))
        row = rows[-1]
        print(
            f"{row.teacher}: {row.encoding}, {row.size:.1f} bytes, {row.lost:.4f} lost, "
            f"bound {row.bounds[1]:.1f}, kd T=4 {row.cosines['kd T=4']:.4f}",
            flush=True,
        )
    return rows


def columns() -> list[str]:
    """Of the table."""
    sizes = ["bytes", "header KiB", "variance lost", "bound alone", f"bound, {VIEWS} views", "ratio"]
    return ["teacher", "encoding", *sizes, *(f"TV T={t:g}" for t in TEMPERATURES), *chosen_losses()]


def bound_table(bounds: list[list[object]]) -> str:
    """The least bytes at some losses, and what ours takes there."""
    joint = [f"{views} views" for views in JOINT_VIEWS]
    return markdown_table(["teacher", "variance lost", "alone", *joint, "kdcache", "ratio"], bounds)


def write(grounds: list[Ground], rows: list[Measured], bounds: list[list[object]]) -> None:
    """The table with that of the bound, and a JSON with every figure."""
    sizes = ", ".join(
        f"{g.views.name} {len(g.views.fit):,} and {len(g.views.held):,} samples of {VIEWS} views, "
        f"{g.between_views:.0%} of the variance between views"
        for g in grounds
    )
    notes = (
        f"Fitted to one half, measured on the other: {sizes}. Bytes: of a view on disk; the header is kept "
        "once per cache. Variance lost: squared error over the square about the class means of the fitting "
        "half, each view's own mean over the classes taken away. Bound: Gaussian, bytes per view by reverse "
        "water-filling at the same variance lost, each view alone and all views of a sample together; ratio: "
        "bytes over the latter. The last columns are cosines of the student's gradient from decoded and from "
        f"live logits. In the picture, what loses less than {_LEAST_SHOWN:g} is drawn there.\n\n"
        f"The least bytes per view at some losses:\n\n{bound_table(bounds)}"
    )
    title = "What a byte buys on real teachers, and the least that it can cost"
    write_results("real_teachers", title, columns(), [row.cells() for row in rows], notes)
    kept = RESULTS / "real_teachers.json"
    record = json.loads(kept.read_text()) | {"measured": [asdict(row) for row in rows], "bounds": bounds}
    kept.write_text(json.dumps(record, indent=1) + "\n")


def write_short(rows: list[Measured]) -> None:
    """The rows of the ImageNet teacher that README shows."""
    shown = [row for row in rows if row.teacher == TEACHERS[0] and row.encoding in SHORT]
    table = [
        [
            row.encoding,
            row.size,
            row.lost,
            row.bounds[1],
            row.size / row.bounds[1] if row.bounds[1] > 1 else "-",
        ]
        + [row.cosines[name] for name in SHORT_LOSSES]
        for row in shown
    ]
    names = ["encoding", "bytes", "variance lost", "bound", "ratio", *SHORT_LOSSES]
    notes = "From `real_teachers.md`: EfficientNet-Lite0, 1,000 classes, 8 views, held-out pictures."
    write_results("real_teachers_short", "What a byte buys on an ImageNet teacher", names, table, notes)


def plot(grounds: list[Ground], rows: list[Measured]) -> None:
    """Variance lost over bytes, one axis for each teacher."""
    figure, axes = plt.subplots(1, len(grounds), figsize=(6 * len(grounds), 5), squeeze=False)
    for axis, ground in zip(axes[0], grounds, strict=True):
        draw(axis, ground, [row for row in rows if row.teacher == ground.views.name])
    axes[0, 0].set_ylabel("share of the logits' variance lost, held-out samples")
    axes[0, 0].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(RESULTS / "real_teachers.png", dpi=100)
    plt.close(figure)


def draw(axis: Axes, ground: Ground, rows: list[Measured]) -> None:
    """The bounds as curves, one line of points for each system."""
    shares = np.geomspace(0.6, 2 * _LEAST_SHOWN, 60)
    bounds = {"bound, each view alone": ground.alone, f"bound, {VIEWS} views together": ground.joint}
    for style, (name, bound) in zip(("--", "-"), bounds.items(), strict=True):
        axis.plot([bound.bytes_per_view(s) for s in shares], shares, style, color="black", label=name)
    for system in dict.fromkeys(row.system for row in rows):
        points = sorted((row.size, max(row.lost, _LEAST_SHOWN)) for row in rows if row.system == system)
        axis.plot(*zip(*points, strict=True), marker="o", label=system)
    axis.set(xscale="log", yscale="log", xlabel="bytes per view on disk", xlim=(2, 3000))
    axis.set_title(f"{ground.views.name}, {ground.views.classes:,} classes")
    axis.grid(alpha=0.3, which="both")


def command() -> None:
    """Measure the teachers that were named, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teachers", nargs="+", choices=TEACHERS)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only encodings that have it in their name"
    )
    given = parser.parse_args()
    chosen = [encoding for encoding in ENCODINGS if given.only in encoding.name]
    for teacher in given.teachers:
        rows = measured(Ground(of_teacher(teacher)), chosen)
        print(markdown_table(columns(), [row.cells() for row in rows]))


if __name__ == "__main__":
    command()
