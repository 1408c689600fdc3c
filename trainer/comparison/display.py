"""What a comparison tells while it runs: a line a run, and a live line on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from trainer.comparison.standings import RunResult

_LOOK_EVERY_S = 1.0
Epochs = tuple[int, int]
"""Done, and in all."""


class CompareDisplay:
    """Tells on a rich console. Entered while runs go on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.fields[runs]} runs"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} epochs"),
            TimeElapsedColumn(),
            # rich's own estimate forgets that every run takes seconds to start.
            TextColumn("{task.fields[eta]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._runs = 0
        self._first_epochs = 0
        self._began = self._last_look = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def start(self, runs: int, done: int, jobs: int, threads: int, epochs: Epochs) -> None:
        """Runs begin, or go on."""
        before = f", {done} of them finished before" if done else ""
        self.say(f"{runs} runs{before}; {jobs} side by side, {threads} thread(s) each")
        self._runs, self._first_epochs, self._began = runs, epochs[0], time.monotonic()
        self._task = self._bar.add_task(
            "", completed=epochs[0], total=epochs[1], runs=f"{done}/{runs}", eta=""
        )

    def look(self, done: int, epochs: Callable[[], Epochs]) -> None:
        """Time passes: move the bar now and then."""
        now = time.monotonic()
        if self._console.is_terminal and now - self._last_look >= _LOOK_EVERY_S:
            self._last_look = now
            self._move(done, epochs())

    def ended(self, name: str, result: RunResult, done: int, epochs: Epochs) -> None:
        """A run came to its end."""
        what = f"held out {result.top1:.2f} %" if result.top1 is not None else f"FAILED: {result.failure}"
        eta = "" if self._console.is_terminal else self._eta(epochs)
        self.say(f"[{done}/{self._runs}] {name}: {what}{'; ' if eta else ''}{eta}")
        self._move(done, epochs)

    def _move(self, done: int, epochs: Epochs) -> None:
        if self._task is not None:
            self._bar.update(
                self._task, completed=epochs[0], total=epochs[1], runs=f"{done}/{self._runs}",
                eta=self._eta(epochs),
            )  # fmt: skip

    def _eta(self, epochs: Epochs) -> str:
        """By the epochs since the start of this command; empty before the first."""
        done, total = epochs
        gained = done - self._first_epochs
        if gained <= 0 or done >= total:
            return ""
        return f"eta {_duration((time.monotonic() - self._began) / gained * (total - done))}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
