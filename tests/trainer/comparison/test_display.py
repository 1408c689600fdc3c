"""What a comparison tells while it runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.trainer.comparison.test_report import plan, rows
from trainer.comparison import display
from trainer.comparison.display import CompareDisplay
from trainer.comparison.standings import Failure, RunResult


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def told(tmp_path, clock, terminal):
    """Two of four runs of ten epochs end, a third goes on."""
    text = io.StringIO()
    kd = plan(tmp_path, "kd").methods[1]
    display = CompareDisplay(Console(file=text, force_terminal=terminal, width=120))
    with display:
        display.start(4, 1, 2, 1, (10, 40))
        clock[0] += 60
        display.ended("kd, seed 0", RunResult(kd, 0, rows(0.5, 0.75)), 2, (20, 40))
        clock[0] += 60
        display.look(2, lambda: (25, 40))
        display.look(2, pytest.fail)  # not every time
        display.ended("kd, seed 1", RunResult(kd, 1, (), Failure("lost", tmp_path / "log")), 3, (25, 30))
    return text.getvalue()


def test_a_line_a_run_with_what_is_left(tmp_path, clock):
    assert told(tmp_path, clock, terminal=False).splitlines() == [
        "4 runs, 1 of them finished before; 2 side by side, 1 thread(s) each",
        # 10 epochs in 60 s, 20 are left.
        "[2/4] kd, seed 0: held out 75.00 %; eta 2 min 00 s",
        # 15 in 120 s, 5 are left: those of the failed run are not.
        f"[3/4] kd, seed 1: FAILED: lost (log: {tmp_path}/log); eta 0 min 40 s",
    ]


def test_a_terminal_has_a_bar_as_well(tmp_path, clock):
    shown = told(tmp_path, clock, terminal=True)
    assert "[2/4] kd, seed 0: held out 75.00 %\n" in shown
    assert "3/4 runs" in shown
    assert "25/30 epochs" in shown
    assert "\x1b[" in shown
