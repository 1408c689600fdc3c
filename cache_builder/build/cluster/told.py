"""What a process elsewhere has to say, kept until the driver looks: progress is shown in one place."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from cache_builder.console.progress import Progress


@dataclass(frozen=True)
class Snapshot:
    """How far a job is, and the lines it said since somebody last looked."""

    number: int = 0
    """Of the phase, counted from 1; 0 before the first."""
    phase: str = ""
    total: int = 0
    before: int = 0
    unit: str = ""
    done: int = 0
    note: str = ""
    lines: tuple[str, ...] = ()


class Told:
    """The :class:`Progress` of a job in an actor, which another thread of the actor reads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._now = Snapshot()

    def say(self, text: str) -> None:
        """Keep a line until it is taken."""
        with self._guard:
            self._now = replace(self._now, lines=(*self._now.lines, text))

    def start(self, phase: str, total: int, done: int = 0, unit: str = "views") -> None:
        """Begin a phase."""
        with self._guard:
            begun = Snapshot(self._now.number + 1, phase, total, done, unit, done)
            self._now = replace(begun, lines=self._now.lines)

    def update(self, done: int, note: str = "", last: bool = False) -> None:
        """Note how far the phase is."""
        with self._guard:
            self._now = replace(self._now, done=done, note=note)

    def take(self) -> Snapshot:
        """How far it is; its lines are given once."""
        with self._guard:
            taken, self._now = self._now, replace(self._now, lines=())
        return taken


class Relay:
    """Shows the snapshots of a job on the driver's progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._shown = 0

    def show(self, seen: Snapshot) -> None:
        """Its lines, and its phase as far as it is."""
        for line in seen.lines:
            self._progress.say(line)
        if not seen.number:
            return
        if seen.number != self._shown:
            self._shown = seen.number
            self._progress.start(seen.phase, seen.total, seen.before, seen.unit)
        self._progress.update(seen.done, seen.note, last=seen.done == seen.total)
