"""One sample of a cache, decoded: what the teacher said about it in one view, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cache_builder.format.class_names import ClassNames
from cache_builder.format.errors import IncompleteCacheError
from cache_builder.format.held import HeldStore
from cache_builder.format.manifest import Manifest
from cache_builder.format.reader import Cache

_BAR = 30
_CLASSES_SHOWN = 20
_POSITIONS_SHOWN = 8


@dataclass(frozen=True)
class ClassScore:
    """One class of a decoded record."""

    class_id: int
    name: str | None
    logit: float
    probability: float


@dataclass(frozen=True)
class Answer:
    """One decoded record: what the teacher said at one position."""

    valid: bool
    top: list[ClassScore]
    tail_mass: float
    """Probability of all classes outside the top K."""


@dataclass(frozen=True)
class SampleView:
    """One sample in one view."""

    sample_id: str
    row: int
    view: int
    label: int | None
    answers: list[Answer]
    """By position."""

    def as_json(self, has_one_position: bool) -> dict[str, Any]:
        """One object; where a sample has one position, what was said there is in it directly."""
        body = asdict(self)
        answers = body.pop("answers")
        return body | (answers[0] if has_one_position else {"positions": answers})


def decode_sample(cache: Cache, row: int, view: int, held: HeldStore | None = None) -> SampleView | None:
    """None where the view is not there yet. ``held``: what was fetched of its block before."""
    try:
        records = cache.read_rows(view, range(row, row + 1), held=held)
    except IncompleteCacheError:
        return None
    label = int(cache.labels_of(range(row, row + 1))[0])
    answers = list(_answers(cache, records))
    return SampleView(cache.stored_ids[row], row, view, label if label >= 0 else None, answers)


def _answers(cache: Cache, records: NDArray[np.uint8]) -> Iterator[Answer]:
    kept, names = cache.stored(records), cache.class_names
    for classes, values, lse in zip(kept.classes, kept.values, kept.lse, strict=True):
        if not np.isfinite(lse):
            yield Answer(valid=False, top=[], tail_mass=0.0)
            continue
        probabilities = np.exp(values - lse)
        top = [
            ClassScore(int(index), names[index] if names else None, float(value), float(probability))
            for index, value, probability in zip(classes, values, probabilities, strict=True)
        ]
        yield Answer(valid=True, top=top, tail_mass=max(0.0, 1.0 - float(probabilities.sum())))


def show_sample(sample: SampleView | None, manifest: Manifest, names: ClassNames, console: Console) -> None:
    """Print for people."""
    if sample is None:
        console.print("no view is complete yet, so there is no sample to show")
        return
    label = "unknown" if sample.label is None else _class_name(names.teacher, sample.label)
    title = Text(f"\n{sample.sample_id}", "bold")
    console.print(title.append(f", view {sample.view}, row {sample.row}, label {label}", "not bold"))
    if manifest.positions.kind == "one":
        _show_answer(sample.answers[0], sample.label, manifest, console)
        return
    for position, answer in enumerate(sample.answers[:_POSITIONS_SHOWN]):
        console.print(Text(f"position {position} of {len(sample.answers)}", "bold"))
        _show_answer(answer, sample.label, manifest, console)
    if len(sample.answers) > _POSITIONS_SHOWN:
        console.print(f"{len(sample.answers) - _POSITIONS_SHOWN} more position(s): --json has all of them")
    if not sample.answers:
        console.print("this sample has no position: the teacher said nothing about it")


def _show_answer(answer: Answer, label: int | None, manifest: Manifest, console: Console) -> None:
    if not answer.valid:
        console.print("this sample could not be read when the cache was built: its record is marked invalid")
        return
    console.print(_bars(answer, label))
    others = manifest.classes - manifest.codec.kept(manifest.classes)
    if others:
        console.print(f"all other {others} classes: {answer.tail_mass:.2%}")


def _class_name(names: tuple[str, ...] | None, class_id: int) -> str:
    return f"{class_id} {names[class_id]}" if names else str(class_id)


def _bars(answer: Answer, label: int | None) -> Table:
    table = Table(show_header=True, box=None, header_style="dim", pad_edge=False)
    for title in ("class", "logit", "probability"):
        table.add_column(title, justify="left" if title == "class" else "right")
    table.add_column("")
    for score in answer.top[:_CLASSES_SHOWN]:
        style = "green" if score.class_id == label else ""
        bar = "█" * round(score.probability * _BAR) or "▏"
        name = f"{score.class_id}" + (f" {score.name}" if score.name else "")
        cells = (name, f"{score.logit:.3f}", f"{score.probability:.2%}", bar)
        table.add_row(*(Text(cell, style) for cell in cells))
    return table
