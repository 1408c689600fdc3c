"""What a build says while it runs: nothing, or a live display on a terminal and plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Protocol, Self

from rich import progress as bars
from rich.console import Console

_LINE_EVERY_S = 10.0


@dataclass
class BuildStats:
    """Counters of a running build."""

    done: int = 0
    """Records finished in this run."""
    bytes_written: int = 0
    """Bytes of committed shards in this run."""
    records_committed: int = 0
    """Records of those shards."""
    top1_hits: int = 0
    """Records whose largest logit is the label's."""
    labelled: int = 0
    """Records that have a label."""
    invalid: int = 0
    """Rows that could not be read."""
    clipped: int = 0
    """Tail coefficients that did not fit their integer type."""

    @classmethod
    def sum(cls, several: Iterable[Self]) -> Self:
        """The counters of several processes together."""
        found = cls()
        for one in several:
            for counter in fields(cls):
                setattr(found, counter.name, getattr(found, counter.name) + getattr(one, counter.name))
        return found

    @property
    def top1(self) -> float | None:
        """Teacher accuracy so far, None without labels."""
        return self.top1_hits / self.labelled if self.labelled else None

    @property
    def bytes_per_view(self) -> float | None:
        """Bytes on disk per record so far."""
        return self.bytes_written / self.records_committed if self.records_committed else None

    def describe(self) -> str:
        """The figures in a few words."""
        parts = []
        if self.bytes_per_view is not None:
            parts.append(f"{self.bytes_per_view:.1f} B/view")
        if self.top1 is not None:
            parts.append(f"teacher top-1 {self.top1:.1%}")
        if self.invalid:
            parts.append(f"{self.invalid} unreadable")
        return ", ".join(parts)


class Progress(Protocol):
    """Where a long job says how far it is, one phase after the other."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def start(self, phase: str, total: int, done: int = 0, unit: str = "views") -> None:
        """Begin a phase of ``total`` steps, ``done`` of which were finished before this run."""

    def update(self, done: int, note: str = "", last: bool = False) -> None:
        """``done`` steps of the phase are finished; ``last`` marks the end of the phase."""


class Silent:
    """Says nothing: the progress of a job that is called from Python."""

    def say(self, text: str) -> None:
        """Nothing is printed."""

    def start(self, phase: str, total: int, done: int = 0, unit: str = "views") -> None:
        """Nothing is shown."""

    def update(self, done: int, note: str = "", last: bool = False) -> None:
        """Nothing is shown."""


SILENT = Silent()


class BuildProgress:
    """The :class:`Progress` of the commands, on a console. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._bar = bars.Progress(
            bars.TextColumn("{task.description:<11}"),
            bars.BarColumn(),
            bars.TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeElapsedColumn(),
            bars.TextColumn("eta"),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self._live,
        )
        self._task: bars.TaskID | None = None
        self._phase = ""
        self._total = self._first = 0
        self._started = self._last_line = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def start(self, phase: str, total: int, done: int = 0, unit: str = "views") -> None:
        """Begin a phase of ``total`` steps, ``done`` of them before this run."""
        self._phase, self._total, self._first = phase, total, done
        self._started = self._last_line = time.monotonic()
        if self._task is not None:
            self._bar.update(self._task, visible=False)
        self._task = self._bar.add_task(phase, total=total, completed=done, unit=unit, rate="", note="")
        if not self._live:
            self.say(f"{phase}: {done:,} of {total:,} {unit}")

    def update(self, done: int, note: str = "", last: bool = False) -> None:
        """``done`` steps of the phase are finished; ``last`` always prints its line."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (done - self._first) / elapsed
        assert self._task is not None
        self._bar.update(self._task, completed=done, rate=f"{rate:,.0f}/s", note=note)
        if not self._live and (last or self._now_due()):
            left = (self._total - done) / rate if rate else 0.0
            line = f"{self._phase}: {done:,} of {self._total:,}, {rate:,.1f}/s, eta {left:,.0f} s"
            self.say(f"{line}, {note}" if note else line)

    def _now_due(self) -> bool:
        due = time.monotonic() - self._last_line >= _LINE_EVERY_S
        if due:
            self._last_line = time.monotonic()
        return due


def searching(progress: Progress) -> Callable[[int, int], None]:
    """What shows how far the choice of a record is."""

    def advance(done: int, total: int) -> None:
        if not done:
            progress.start("choosing the record", total, unit="settings")
        progress.update(done, last=done == total)

    return advance
