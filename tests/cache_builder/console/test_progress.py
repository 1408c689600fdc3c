from __future__ import annotations

import io

import pytest
from rich.console import Console

from cache_builder.console import progress as module
from cache_builder.console.progress import SILENT, BuildProgress, BuildStats


def lines(text: io.StringIO) -> list[str]:
    return text.getvalue().splitlines()


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000, 4))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    text = io.StringIO()
    with BuildProgress(Console(file=text)) as progress:
        progress.start("building", 1000, done=200)
        for done in range(300, 1000, 100):
            progress.update(done, "48.0 B/view")
        progress.update(1000, "done", last=True)
    assert lines(text)[0] == "building: 200 of 1,000 views"
    assert lines(text)[-1].startswith("building: 1,000 of 1,000, ")
    assert lines(text)[-1].endswith("eta 0 s, done")
    # One line each ten seconds, not one for each batch.
    assert 3 <= len(lines(text)) < 8
    assert "\x1b" not in text.getvalue()


def test_rate_and_eta_count_this_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 100.0, 100.0, 100.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    text = io.StringIO()
    with BuildProgress(Console(file=text)) as progress:
        progress.start("building", 1000, done=500)
        progress.update(600)
    assert lines(text)[-1] == "building: 600 of 1,000, 1.0/s, eta 400 s"


def test_a_live_display_on_a_terminal() -> None:
    text = io.StringIO()
    with BuildProgress(Console(file=text, force_terminal=True, width=120)) as progress:
        progress.start("calibrating", 10)
        progress.update(10)
        progress.start("building", 50)
        progress.update(50, "48.0 B/view", last=True)
    assert "50/50 views" in text.getvalue()
    assert "48.0 B/view" in text.getvalue()
    assert "building: 50 of 50" not in text.getvalue()


def test_statistics_in_words() -> None:
    stats = BuildStats()
    assert stats.describe() == ""
    assert stats.top1 is None
    assert stats.bytes_per_view is None
    stats = BuildStats(bytes_written=480, records_committed=10, top1_hits=3, labelled=4, invalid=2)
    assert stats.describe() == "48.0 B/view, teacher top-1 75.0%, 2 unreadable"


def test_text_is_not_markup() -> None:
    text = io.StringIO()
    with BuildProgress(Console(file=text)) as progress:
        progress.say("[bold]/data[/bold]")
    assert lines(text) == ["[bold]/data[/bold]"]


def test_the_silent_one_takes_all_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    SILENT.start("building", 10)
    SILENT.update(10, "48.0 B/view", last=True)
    SILENT.say("a line")
    assert capsys.readouterr() == ("", "")
