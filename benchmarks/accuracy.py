"""What a record costs a student: trained to the end on records of several sizes, beside what they stand for.

    python -m benchmarks accuracy                     makes the runs that are missing, about a minute each
    python -m benchmarks.accuracy --runs 20 --only real

Four studies, each with several seeds (``benchmarks.accuracy_data`` has their pictures and teachers):

- ``glyphs``: students of 482 characters learn by several losses from the wide teacher's logits as they are
  (what a live teacher gives, the views being the same), decoded from our records and from the K largest with
  an even tail, of one fixed view, and from labels alone.
- ``views``: how many recorded views are enough, the epochs staying the same; the most of them give each epoch
  its own, as a live teacher does.
- ``real``: students give the 1,000 classes of an ImageNet teacher on real pictures without labels; they
  learn the last layers of a network that was trained before. ``scratch``: small ones, learned from nothing.

Every run is kept when it ends, in ``accuracy.jsonl`` of the folder of glyphs, and all of them with the report
in ``results/accuracy_runs.json``; a run that either has is not made again. ``benchmarks.accuracy_report`` has
the tables and the picture.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks import accuracy_data, accuracy_students
from benchmarks.accuracy_data import MOST_VIEWS, Data, glyphs_folder
from benchmarks.accuracy_report import RUNS, Row, Rows, key_of, write
from benchmarks.accuracy_students import LOSSES, Schedule, trained
from benchmarks.accuracy_teachings import DENSE, LABELS, ONE_VIEW, Teaching, dense_of, losing, top
from benchmarks.live_logits import Floats

LOST = (0.2, 0.05, 0.02, 0.005)
SOME_VIEWS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Study:
    """A set of pictures and how students of it are trained."""

    name: str
    data: Callable[[], Data]
    schedule: Schedule


GLYPHS = Study("glyphs", accuracy_data.glyphs, accuracy_students.GLYPHS)
VIEWS = Study("views", accuracy_data.glyph_views, accuracy_students.GLYPH_VIEWS)
REAL = Study("real", accuracy_data.real_features, accuracy_students.REAL_FEATURES)
SCRATCH = Study("scratch", accuracy_data.real_pictures, accuracy_students.REAL_PICTURES)


@dataclass(frozen=True)
class Run:
    """One student."""

    study: Study
    teaching: Teaching
    loss: str
    seed: int

    @property
    def key(self) -> str:
        """What its row is kept under."""
        loss = "" if self.teaching is LABELS else self.loss
        return key_of(self.study.name, self.teaching.name, loss, self.seed)


def runs() -> Iterator[Run]:
    """All of them, the most telling first."""
    ours = [losing(lose) for lose in LOST]
    alike = [top(2), top(4), top(5)]
    each_size = [DENSE, *ours, top(10), ONE_VIEW]
    real = [DENSE, *ours, top(5), top(10), top(20), ONE_VIEW]
    some = [DENSE, losing(0.05), losing(0.02)]
    others = ["standardized", "dkd", "dist"]
    counts = [dense_of(MOST_VIEWS), *map(dense_of, SOME_VIEWS), *(losing(0.02, v) for v in SOME_VIEWS)]
    yield from _each(GLYPHS, range(3), ["kd T=4"], [LABELS, *each_size])
    yield from _each(REAL, range(3), ["kd T=4"], real)
    yield from _each(GLYPHS, range(3, 5), ["kd T=4"], [DENSE, losing(0.05), losing(0.02)])
    yield from _each(REAL, range(3), [loss for loss in LOSSES if loss != "kd T=4"], [*some, top(10)])
    for seed in range(3):
        yield from _each(GLYPHS, [seed], others, some)
        yield from _each(VIEWS, [seed], ["kd T=4"], counts)
        yield from _each(GLYPHS, [seed], ["kd T=4"], alike)
        yield from _each(SCRATCH, [seed], ["kd T=4"], real)
    yield from _each(GLYPHS, range(3), ["kd T=1", "mse"], each_size)
    yield from _each(GLYPHS, range(3), others, [losing(0.2), top(10)])
    yield from _each(GLYPHS, range(3, 5), ["kd T=4"], [LABELS, losing(0.2), losing(0.005), top(10), ONE_VIEW])
    yield from _each(REAL, range(3, 5), ["kd T=4"], real)


def _each(study: Study, seeds: range | list[int], losses: list[str], given: list[Teaching]) -> Iterator[Run]:
    return (Run(study, teaching, loss, seed) for loss, seed, teaching in product(losses, seeds, given))


class Bench:
    """What the runs of a study share: its pictures, and what was decoded of the logits."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.data = study.data()
        self._given: dict[str, tuple[Floats | None, float]] = {}

    def row(self, run: Run) -> Row:
        """Train a student."""
        if run.teaching.name not in self._given:
            self._given[run.teaching.name] = run.teaching.given(self.data.logits)
        logits, size = self._given[run.teaching.name]
        figures = trained(self.study.schedule, self.data, logits, run.loss, run.seed)
        return {"key": run.key, **figures, "bytes": size}


def main(most: int | None = None, only: str = "") -> None:
    """Make what has not been made, then the report of what there is."""
    benches: dict[str, Bench] = {}
    for run in [run for run in runs() if only in run.key and run.key not in done()][:most]:
        # Another process may have made it by now.
        if run.key in done():
            continue
        if run.study.name not in benches:
            benches[run.study.name] = Bench(run.study)
        began = time.process_time()
        row = benches[run.study.name].row(run)
        with _log().open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{run.key}: {row['top1']:.2%}, {time.process_time() - began:.0f} s of processor", flush=True)
    write(done())


def done() -> Rows:
    """The rows that are kept, by key."""
    rows = json.loads(RUNS.read_text()) if RUNS.is_file() else []
    lines = _log().read_text().splitlines() if _log().is_file() else []
    return {row["key"]: row for row in [*rows, *map(json.loads, lines)]}


def _log() -> Path:
    return glyphs_folder() / "accuracy.jsonl"


def command() -> None:
    """Make some of the runs, and the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, help="the most that are made; all that are missing where not given"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only runs that have it in their key")
    given = parser.parse_args()
    main(given.runs, given.only)


if __name__ == "__main__":
    command()
