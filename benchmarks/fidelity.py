"""What a byte buys: our records against what other systems store, on real logits of 482 classes.

    python -m benchmarks fidelity               pictures, teachers and student are made on the first run
    python -m benchmarks.fidelity narrow wide   these teachers only; the rows of the others stay as they are

Fonts must be installed (``python -m benchmarks.glyphs --packages``). The folder is BENCHMARKS_GLYPHS, by
default ``~/.cache/kdcache/glyphs``. Records are of training pictures under augmentation, as a cache has them,
in random order; the codec is fitted on others. Gradients are those of a student trained for two epochs.

*kdcache* is codec ``joint-sketch``, which looks at 8 views of a sample at once; *class-sketch* and the other
systems see each view alone. Gradients are of the same two views of the same samples for all of them. Rows
in ``results/fidelity_losses.json`` that are of the same networks are kept: remove it to measure all anew.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from benchmarks import glyph_teacher, glyphs
from benchmarks.encodings import Floats
from benchmarks.glyph_encodings import ALONE, JOINT
from benchmarks.gradients import Batches, Gradients
from benchmarks.report import RESULTS, write_results
from benchmarks.view_encodings import Encoding
from cache_builder.calibration.fidelity import TEMPERATURES
from cache_builder.format.probabilities import softmax

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen

TEACHERS = ("narrow", "wide", "smoothed")
FITTED, MEASURED, GRADIENTS = 4 * glyph_teacher.CLASSES, 4096, 512
"""Samples: in two views the codecs of a view are fitted to the first and measured on the second."""
VIEWS, JOINT_FITTED = 8, 2048
"""Of a joint sketch: so many samples as a build looks at. It is measured on those that gradients are of."""
SHOWN = ("kd", "dkd", "standardized", "dist", "mse")
# Its gradient hangs on which sample of the batch has the median difficulty: a teacher in bfloat16 is
# enough to change which.
CHAOTIC = ("adakd",)
TARGET = 0.995
SHORT = (
    ("narrow", "wide"),
    ("TinyViT, K=10", "ml-dr, K=10", "Megatron-LM, K=20", "DistillKit, K=50", "class-sketch, 48 bytes",
     "kdcache, 0.002 lost", "kdcache, 32 bytes", "kdcache, 46 bytes"),
)  # fmt: skip
SHORT_COLUMNS = [
    "teacher",
    "encoding",
    "bytes",
    "TV T=1",
    "TV T=4",
    "kd",
    "dkd",
    "mse",
    "least of all losses",
]


def main(teachers: Sequence[str] = TEACHERS) -> None:
    """Measure what is missing of these teachers, print and keep the table and the plot."""
    folder = Path(os.environ.get("BENCHMARKS_GLYPHS", "~/.cache/kdcache/glyphs")).expanduser()
    prepare(folder, (*teachers, "student"))
    pictures = glyph_teacher.load_pictures(folder / "train")
    kept = {(row.teacher, row.encoding): row for row in kept_rows()}
    rows: list[Measured] = []
    for teacher in TEACHERS:
        if teacher not in teachers:
            rows += [row for row in kept.values() if row.teacher == teacher]
            continue
        networks = digest(folder, teacher)
        found = {
            name: row for (whose, name), row in kept.items() if whose == teacher and row.networks == networks
        }
        missing = {encoding.name for encoding in (*ALONE, *JOINT)} - found.keys()
        if missing:
            ground = Ground(folder, teacher, *pictures)
            found |= {row.encoding: row for row in measured(ground, missing, networks)}
        rows += [found[encoding.name] for encoding in (*ALONE, *JOINT)]
    write(rows)
    plot(rows, RESULTS / "fidelity.png")


def command() -> None:
    """Measure the teachers that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teachers", nargs="+", choices=TEACHERS)
    main(parser.parse_args().teachers)


def prepare(folder: Path, networks: Sequence[str]) -> None:
    """Pictures and networks, where they are not there yet."""
    if not (folder / "train").is_dir():
        print("rendering characters", flush=True)
        glyphs.write(folder, 32, 70, 29)
    missing = [name for name in networks if not (folder / f"{name}.safetensors").is_file()]
    if missing:
        glyph_teacher.train_all(folder, missing)


def kept_rows() -> list[Measured]:
    """What was measured before."""
    path = RESULTS / "fidelity_losses.json"
    if not path.is_file():
        return []
    rows = json.loads(path.read_text())
    return [Measured(**row | {"tv": tuple(row["tv"])}) for row in rows]


def digest(folder: Path, teacher: str) -> str:
    """Of the weights that rows are of: another machine trains others."""
    files = [(folder / f"{name}.safetensors").read_bytes() for name in (teacher, "student")]
    return hashlib.sha256(b"".join(files)).hexdigest()[:12]


def views_of(folder: Path, name: str, images: torch.Tensor, count: int) -> Floats:
    """Logits [N, V, C] of augmented views, the same for every network; two are the first two of more."""
    model = glyph_teacher.network(glyph_teacher.SHAPES[name])
    model.load_state_dict(load_file(folder / f"{name}.safetensors"))
    model.eval()
    return np.stack([glyph_teacher.logits_of(model, images, 11 + view) for view in range(count)], axis=1)


class Ground:
    """A teacher's logits and what every encoding of them is measured with."""

    def __init__(self, folder: Path, teacher: str, images: torch.Tensor, labels: torch.Tensor) -> None:
        order = np.random.default_rng(0).permutation(len(images))
        fit, held, shown = order[-FITTED:], order[:MEASURED], order[:GRADIENTS]
        self.teacher = teacher
        self.alone = tuple(views_of(folder, teacher, images[rows], 2) for rows in (fit, held))
        # Augmentation is drawn for 512 pictures at a time, so that these are the first of the others' views.
        fit = order[-JOINT_FITTED:]
        self.joint = tuple(views_of(folder, teacher, images[rows], VIEWS) for rows in (fit, shown))
        student = views_of(folder, "student", images[shown], 2).swapaxes(0, 1)
        live = self.joint[1][:, :2].swapaxes(0, 1)
        self._gradients = Gradients(Batches(student, live, labels[shown].numpy()))

    def measured(self, encoding: Encoding, is_joint: bool, networks: str) -> Measured:
        """Fit to some samples, measure on others."""
        fit, live = self.joint if is_joint else self.alone
        found = encoding.encode(fit, live)
        flat, decoded = (logits.reshape(-1, logits.shape[2]) for logits in (live, found.decoded))
        return Measured(
            teacher=self.teacher,
            encoding=encoding.name,
            size=found.bytes_per_view,
            tv=tuple(total_variation(flat, decoded, t) for t in TEMPERATURES),
            cosines=self._gradients.cosines(found.decoded[:GRADIENTS, :2].swapaxes(0, 1)),
            settings=found.settings,
            networks=networks,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )


@dataclass(frozen=True)
class Measured:
    """One encoding of one teacher's logits."""

    teacher: str
    encoding: str
    size: float
    """Bytes per view."""
    tv: tuple[float, ...]
    """At each of ``TEMPERATURES``."""
    cosines: dict[str, float]
    """Of the gradient of each loss."""
    settings: str = ""
    """What a record holds, where its name does not say so."""
    networks: str = ""
    """Digest of the teacher's and the student's weights."""
    date: str = ""

    @property
    def system(self) -> str:
        """Whose encoding it is."""
        return self.encoding.partition(",")[0]

    @property
    def worst(self) -> tuple[float, str]:
        """The least cosine and its loss."""
        return min((value, name) for name, value in self.cosines.items() if name not in CHAOTIC)

    def cells(self) -> list[object]:
        """The row of the table."""
        value, name = self.worst
        below = sum(cosine < TARGET for loss, cosine in self.cosines.items() if loss not in CHAOTIC)
        shown = [self.cosines[loss] for loss in SHOWN]
        named = f"{self.encoding} ({self.settings})" if self.settings else self.encoding
        return [self.teacher, named, self.size, *self.tv, *shown, value, name, below]

    def short(self) -> list[object]:
        """The row of the README's table."""
        tv = [self.tv[TEMPERATURES.index(t)] for t in (1.0, 4.0)]
        shown = [self.cosines[loss] for loss in ("kd", "dkd", "mse")]
        return [self.teacher, self.encoding, self.size, *tv, *shown, self.worst[0]]


def measured(ground: Ground, names: set[str], networks: str) -> Iterator[Measured]:
    """The encodings of these names; each is told when it is there."""
    for encodings, is_joint in ((ALONE, False), (JOINT, True)):
        for encoding in encodings:
            if encoding.name in names:
                row = ground.measured(encoding, is_joint, networks)
                value, name = row.worst
                print(f"{row.teacher}: {row.encoding}, {row.size:.1f} bytes, {name} {value:.4f}", flush=True)
                yield row


def total_variation(live: NDArray[np.float32], decoded: NDArray[np.float32], temperature: float) -> float:
    """Mean of half the L1 distance of the softmaxes."""
    t = np.float32(temperature)
    return float(np.abs(softmax(live / t) - softmax(decoded / t)).sum(axis=1).mean() / 2)


def write(rows: list[Measured]) -> None:
    """The table, and a second JSON with the cosine of every loss."""
    columns = ["teacher", "encoding", "bytes", *(f"TV T={t:g}" for t in TEMPERATURES), *SHOWN]
    columns += ["least cosine", "of", f"losses below {TARGET}"]
    counted = [loss for loss in rows[0].cosines if loss not in CHAOTIC]
    dense = {row.teacher: row.cosines for row in rows if row.encoding == "all logits, bf16"}
    chaos = ", ".join(f"{name} {c[name]:.3f} ({t})" for name in CHAOTIC for t, c in dense.items())
    notes = (
        "Cosine of the student's gradient from decoded and from live logits, at the defaults of "
        f"{len(counted)} losses ({', '.join(counted)}). Left out of the least, because live logits rounded "
        f"to bfloat16 already turn its gradient: {chaos}. Bytes: of the teacher's output, after each "
        "system's own compression, of records in random order. kdcache is codec joint-sketch on "
        f"{GRADIENTS} samples in {VIEWS} views, fitted to {JOINT_FITTED:,} others; class-sketch, "
        f"the codec of earlier releases, and the other systems see each view alone, of {2 * MEASURED:,}. "
        f"{measured_when(rows)}"
    )
    write_results("fidelity", "What a byte buys: kdcache and other encodings", columns,
                  [row.cells() for row in rows], notes)  # fmt: skip
    short = [row.short() for row in rows if row.teacher in SHORT[0] and row.encoding in SHORT[1]]
    write_results("fidelity_short", "What a byte buys, in short", SHORT_COLUMNS, short, notes)
    every = [asdict(row) for row in rows]
    (RESULTS / "fidelity_losses.json").write_text(json.dumps(every, indent=1) + "\n")


def measured_when(rows: list[Measured]) -> str:
    """A sentence on each teacher: figures of several networks and days are in one table."""
    joint = {row.teacher for row in rows if row.system == "kdcache"}
    found = []
    for teacher in dict.fromkeys(row.teacher for row in rows):
        dates = sorted({row.date for row in rows if row.teacher == teacher})
        without = "" if teacher in joint else ", kdcache is missing"
        found.append(f"{teacher} ({' and '.join(dates)}{without})")
    return f"Measured: {', '.join(found)}."


def plot(rows: list[Measured], path: Path) -> None:
    """1 - least cosine, and TV at T = 4, over bytes; one column for each teacher."""
    teachers = list(dict.fromkeys(row.teacher for row in rows))
    figure, axes = plt.subplots(2, len(teachers), figsize=(5 * len(teachers), 8), squeeze=False, sharex=True)
    for column, teacher in enumerate(teachers):
        of_teacher = [row for row in rows if row.teacher == teacher]
        draw_column(axes[:, column], of_teacher)
        axes[0, column].set_title(f"{teacher} teacher, 482 classes")
    axes[0, 0].set_ylabel("1 - least gradient cosine of all losses")
    axes[1, 0].set_ylabel("total variation of the softmax at T = 4")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_column(axes: NDArray[np.object_], rows: list[Measured]) -> None:
    """One line for each system."""
    for system in dict.fromkeys(row.system for row in rows):
        points = sorted((row for row in rows if row.system == system), key=lambda row: row.size)
        sizes, ours = [row.size for row in points], system == "kdcache"
        lost = ([1 - row.worst[0] for row in points], [row.tv[TEMPERATURES.index(4.0)] for row in points])
        for axis, values in zip(axes, lost, strict=True):
            axis.plot(
                sizes, values, marker="o", linewidth=3 if ours else 1, zorder=3 if ours else 2, label=system
            )
    for axis in axes:
        axis.set(xscale="log", yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[0].axhline(1 - TARGET, color="grey", linestyle=":")
    axes[1].set_xlabel("bytes per view on disk")


if __name__ == "__main__":
    command()
