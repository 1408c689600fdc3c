"""What a run tells while it trains: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from trainer.run.assemble import Run
    from trainer.run.run_folder import Row

_LINE_EVERY_S = 60.0


class Display(Protocol):
    """What the loop calls. Entered once, on the main process."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def start(self, run: Run, first_step: int) -> None:
        """A run begins, or goes on, at a step."""

    def stepped(self, step: int) -> None:
        """That many steps are done."""

    def epoch(self, row: Row, is_best: bool) -> None:
        """An epoch is done: the row of ``metrics.jsonl``."""


class Silent:
    """Says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""

    def start(self, run: Run, first_step: int) -> None:
        """Nothing."""

    def stepped(self, step: int) -> None:
        """Nothing."""

    def epoch(self, row: Row, is_best: bool) -> None:
        """Nothing."""


class ConsoleDisplay:
    """Tells on a rich console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._epochs = self._steps = 0
        self._last_line = (0, 0.0)
        """Step and time of the last line about steps."""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, run: Run, first_step: int) -> None:
        """Say what is trained on what, and for what."""
        for line in describe(run):
            self._say(line)
        if first_step:
            self._say(f"resumed after step {first_step:,} of {run.plan.steps:,}")
        self._epochs, self._steps = run.plan.epochs, run.plan.steps
        self._last_line = (first_step, time.monotonic())
        self._task = self._bar.add_task("", total=run.plan.steps, completed=first_step, epoch="")

    def stepped(self, step: int) -> None:
        """Move the bar; where there is none, say so once a minute."""
        if self._console.is_terminal:
            if self._task is not None:
                self._bar.update(self._task, completed=step)
            return
        before, then = self._last_line
        elapsed = time.monotonic() - then
        if elapsed >= _LINE_EVERY_S:
            rate = (step - before) / elapsed
            left_min = (self._steps - step) / rate / 60
            self._say(f"step {step:,}/{self._steps:,}  {rate:.2f} steps/s  eta {left_min:,.0f} min")
            self._last_line = (step, time.monotonic())

    def epoch(self, row: Row, is_best: bool) -> None:
        """One line that stays."""
        if self._task is not None:
            self._bar.update(self._task, epoch=f"{row['epoch']}/{self._epochs}")
        self._say(epoch_line(row, self._epochs) + ("  *" if is_best and "val_top1" in row else ""))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def describe(run: Run) -> list[str]:
    """The run in a few lines."""
    config, settings = run.config, run.config.settings
    weights = sum(parameter.numel() for parameter in run.student.parameters())
    where = f"{run.accelerator.device.type}, {settings.precision}"
    if run.accelerator.num_processes > 1:
        where += f", {run.accelerator.num_processes} processes"
    source = f" ({config.objective_source})" if config.objective_source else ""
    lines = [
        f"student   {settings.student}: {weights:,} weights, {config.classes} classes, {where}",
        f"data      {settings.data}: {config.data_in_words}",
        f"minimise  {' + '.join(map(str, config.objective))}{source}",
    ]
    if settings.aux_head is not None:
        lines.insert(1, f"aux head  {settings.aux_head}")
    taught = "" if run.caches else "; no loss looks at it, so no records are fetched"
    teachers = [f"teacher   {facts.teacher}; cache {facts.name}{taught}" for facts in config.caches]
    return [*lines[:1], *teachers, *lines[1:]]


def epoch_line(row: Row, epochs: int) -> str:
    """One epoch in one line."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {row['train_loss']:.3f}"]
    if "train_top1" in row:
        parts.append(f"train {row['train_top1']:6.1%}")
    if "teacher_top1" in row:
        parts.append(f"teacher {row['teacher_top1']:6.1%}")
    if "train_agreement" in row:
        parts.append(f"agrees {row['train_agreement']:6.1%}")
    if "val_top1" in row:
        parts.append(
            f"held out {row['val_top1']:6.1%} (top-5 {row['val_top5']:.1%}, nll {row['val_nll']:.3f})"
        )
    return "  ".join([*parts, f"{row['samples_per_s']:,.0f} samples/s"])
