import json
from pathlib import Path

import pytest

from benchmarks import __main__ as runner
from benchmarks import report


def test_a_table_lines_up_and_rounds_what_it_shows() -> None:
    table = report.markdown_table(
        ["name", "value"], [["a", 1234.5], ["bb", 0.123456], ["c", 12], ["d", True]]
    )
    assert table.splitlines() == [
        "| name | value |",
        "|------|-------|",
        "| a    | 1,234 |",
        "| bb   | 0.123 |",
        "| c    | 12    |",
        "| d    | True  |",
    ]


def test_results_are_printed_and_kept_with_their_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    report.write_results("x", "A title", ["figure"], [[0.123456789]], "A note.\n")
    text = (tmp_path / "results" / "x.md").read_text()
    assert "| 0.123  |" in capsys.readouterr().out
    assert all(part in text for part in ("# A title", "| 0.123  |", "A note.", report.hardware_line()))
    kept = json.loads((tmp_path / "results" / "x.json").read_text())
    assert kept["rows"] == [[0.123456789]]
    assert kept["hardware"] == report.hardware()
    assert kept["date"] in text


def test_the_hardware_names_processor_and_cores() -> None:
    found = report.hardware()
    assert found["cpu"]
    assert int(found["cores"]) > 0


def test_candidates_take_turns_and_the_order_turns_round() -> None:
    asked: list[str] = []

    def measure(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    measured = report.alternate({"a": lambda: measure("a"), "b": lambda: measure("b")}, rounds=3)
    assert asked == ["a", "b", "b", "a", "a", "b"]
    assert measured == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


def test_every_benchmark_is_found_and_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"server", "pages"} <= set(runner.found())
    assert runner.run(["nope"]) == 2
    assert "server" in capsys.readouterr().err
