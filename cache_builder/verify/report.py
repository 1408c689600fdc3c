"""What was checked and how it came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from rich.text import Text

NAMED = 5
"""How many of many things a sentence names."""


class Outcome(StrEnum):
    """How a check came out. All but the first two are failures, each with its own exit code."""

    OK = "ok"
    SKIPPED = "skipped"
    DAMAGED = "damaged"
    """Stored bytes are not what was written."""
    DIFFERS = "differs"
    """The cache is whole, but not of this data set or this teacher."""
    UNFINISHED = "unfinished"
    """The build has not ended."""


EXIT_CODES = {Outcome.DAMAGED: 3, Outcome.DIFFERS: 4, Outcome.UNFINISHED: 5}
"""Of the command, by its worst outcome; the earlier ones come first."""


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    outcome: Outcome
    said: str
    """What was found; for a failure also what to do."""
    figures: dict[str, float] = field(default_factory=dict)
    """Numbers behind it."""

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return self.outcome in EXIT_CODES

    def line(self) -> Text:
        """For people."""
        shown, style = {Outcome.OK: ("ok", "green"), Outcome.SKIPPED: ("skipped", "yellow")}.get(
            self.outcome, ("FAILED", "bold red")
        )
        return Text.assemble((f"{shown:<8}", style), (f"{self.name:<10} ", "bold"), self.said)


@dataclass(frozen=True)
class Report:
    """All checks of a cache."""

    location: str
    cache_id: str | None
    checks: Sequence[Check]

    @property
    def exit_code(self) -> int:
        """0 when nothing failed."""
        found = {check.outcome for check in self.checks}
        return next((code for outcome, code in EXIT_CODES.items() if outcome in found), 0)

    def verdict(self) -> str:
        """The last line."""
        failed = [check.name for check in self.checks if check.failed]
        if failed:
            return f"{self.location}: FAILED ({', '.join(failed)})"
        skipped = [check.name for check in self.checks if check.outcome is Outcome.SKIPPED]
        return f"{self.location}: ok" + (f"; not checked: {', '.join(skipped)}" if skipped else "")

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        checks = [asdict(check) for check in self.checks]
        code = self.exit_code
        return {
            "location": self.location,
            "cache_id": self.cache_id,
            "ok": code == 0,
            "exit_code": code,
            "checks": checks,
        }


def ok(name: str, said: str, **figures: float) -> Check:
    """A check that passed."""
    return Check(name, Outcome.OK, said, figures)


def skipped(name: str, why: str) -> Check:
    """A check that was not made."""
    return Check(name, Outcome.SKIPPED, why)


def named(things: Sequence[str], limit: int = NAMED) -> str:
    """The first few of many."""
    more = f" and {len(things) - limit} more" if len(things) > limit else ""
    return ", ".join(things[:limit]) + more
