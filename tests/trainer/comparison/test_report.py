"""The table: figures by hand."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from tests.trainer.run.test_report import run_config
from tests.trainer.runs import config
from trainer.comparison.methods import parse_methods
from trainer.comparison.plan import Comparison
from trainer.comparison.report import csv_text, markdown, print_table, write_results
from trainer.comparison.standings import Failure, RunResult, Spread, read_run, standings
from trainer.run.config import DecidedSettings


def plan(tmp_path, losses, seeds=3, **settings):
    given = {"val_data": "digits:test", **settings}
    decided, asked = run_config(tmp_path), config(tmp_path, "http://host/v1/caches/c", **given)
    values = decided.settings.model_dump() | asked.model_dump(exclude_none=True)
    baseline = decided.model_copy(update={"settings": DecidedSettings.model_validate(values)})
    return Comparison(
        product_version="1", baseline=baseline, methods=parse_methods(losses, "cifar100"), seeds=seeds
    )


def rows(*top1, nll=1.0, seconds=2.0):
    """Epochs with these held-out accuracies, in 0..1."""
    return tuple(
        {"epoch": n, "val_top1": value, "val_nll": nll, "epoch_s": seconds, "train_loss": 1.0}
        for n, value in enumerate(top1, 1)
    )


@pytest.fixture
def compared(tmp_path):
    """Three seeds of hard labels, KD, and PLD, of which one run failed."""
    made = plan(tmp_path, "pld,kd")
    hard, pld, kd = made.methods
    results = [
        RunResult(hard, 0, rows(0.5, 0.60, seconds=1.0)),
        RunResult(hard, 1, rows(0.8, 0.70, seconds=1.0)),
        RunResult(hard, 2, rows(0.4, 0.65, seconds=4.0)),
        RunResult(kd, 0, rows(0.5, 0.70, nll=1.0)),
        RunResult(kd, 1, rows(0.5, 0.72, nll=2.0)),
        RunResult(kd, 2, rows(0.9, 0.74, nll=6.0)),
        RunResult(pld, 0, rows(0.5, 0.61)),
        RunResult(pld, 1, rows(0.5), Failure("no | luck", tmp_path / "pld.log")),
        RunResult(pld, 2, rows(0.5, 0.61)),
    ]
    return made, standings(made.methods, results)


def test_figures_by_hand(compared):
    kd, hard, pld = compared[1]
    assert [line.method.name for line in (kd, hard, pld)] == ["kd", "ce", "pld"]
    # 70, 72, 74: deviations -2, 0, 2; (4 + 4) / (3 - 1) = 4.
    assert (kd.top1.mean, kd.top1.std) == (pytest.approx(72), pytest.approx(2))
    # 60, 70, 65: (25 + 25) / 2 = 25.
    assert (hard.top1.mean, hard.top1.std) == (pytest.approx(65), pytest.approx(5))
    # By seed +10, +2, +9: mean 7, squares 9 + 25 + 4 = 38, / 2 = 19.
    assert (kd.difference.mean, kd.difference.std) == (pytest.approx(7), pytest.approx(19**0.5))
    assert hard.difference is None
    # Best epochs 70, 72, 90.
    assert kd.best == pytest.approx(232 / 3)
    # 1, 2, 6: mean 3, (4 + 1 + 9) / 2 = 7.
    assert (kd.nll.mean, kd.nll.std) == (pytest.approx(3), pytest.approx(7**0.5))
    # Of six epochs 1, 1, 1, 1, 4, 4.
    assert hard.epoch_s == 1.0
    assert kd.epoch_s == 2.0


def test_a_failed_run_counts_nowhere_but_is_told(compared, tmp_path):
    pld = compared[1][-1]
    # 61 in both runs that ended; against 60 and 65 of the same seeds: +1 and -4.
    assert (pld.top1.mean, pld.top1.std) == (pytest.approx(61), pytest.approx(0))
    assert (pld.difference.mean, pld.difference.std) == (pytest.approx(-1.5), pytest.approx(12.5**0.5))
    assert pld.problems == [f"seed 1 failed: no | luck (log: {tmp_path}/pld.log)"]
    assert pld.shown_top1 == "61.00 ± 0.00 (2 of 3)"


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], None), ([1.5], "+1.50"), ([1.0, 2.0], "+1.50 ± 0.71"), ([-1.0, -2.0], "-1.50 ± 0.71")],
)
def test_a_spread_of_one_has_no_deviation(values, shown):
    spread = Spread.of(values)
    assert (spread and spread.show(sign="+")) == shown


def test_without_hard_labels_there_is_no_difference(tmp_path):
    made = plan(tmp_path, "kd", seeds=1)
    lost = Failure("killed", tmp_path / "log")
    hard, kd = (RunResult(method, 0, rows(0.5), lost) for method in made.methods)
    table = standings(made.methods, [hard, RunResult(kd.method, 0, rows(0.5))])
    assert [line.method.name for line in table] == ["kd", "ce"]
    assert table[0].difference is None
    assert table[1].top1 is None
    assert table[1].shown_top1 == "failed"


def test_failures_of_one_reason_are_one_line(tmp_path):
    made = plan(tmp_path, "kd", seeds=3)
    results = [
        RunResult(method, seed, (), Failure("full" if seed else "away", tmp_path / f"{seed}.log"))
        for method in made.methods
        for seed in range(3)
    ]
    table = standings(made.methods, results)
    assert table[0].problems == [
        f"seed 0 failed: away (log: {tmp_path}/0.log)",
        f"seed 1, 2 failed: full (log: {tmp_path}/1.log)",
    ]
    write_results(tmp_path, made, 2, table)
    assert "| hard labels | failed | – | – | – | – | 0/3 |" in (tmp_path / "compare.md").read_text()
    assert (tmp_path / "compare.png").exists()


@pytest.mark.parametrize("key", ["train_loss", "val_nll"])
def test_a_run_whose_numbers_are_none_diverged(tmp_path, key):
    method = plan(tmp_path, "kd").methods[1]
    epochs = [dict(row) for row in rows(0.5, 0.1, 0.1)]
    epochs[1][key] = float("nan")
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({**row, "step": 1}) + "\n" for row in epochs))
    result = read_run(method, 0, tmp_path, None, tmp_path / "log")
    assert result.failure.reason == "diverged: its loss is not finite after epoch 2"
    assert result.top1 is None
    earlier = Failure("killed", tmp_path / "log")
    assert read_run(method, 0, tmp_path, earlier, tmp_path / "log").failure == earlier


def test_it_is_printed_in_columns_with_failures_below(compared, tmp_path):
    text = io.StringIO()
    print_table(compared[1], Console(file=text, width=40))
    head, kd, hard, pld, problem = text.getvalue().splitlines()
    assert head.split("  ")[0] == "method"
    assert kd.split() == [
        "kd",
        "72.00",
        "±",
        "2.00",
        "+7.00",
        "±",
        "4.36",
        "77.33",
        "3.000",
        "±",
        "2.646",
        "2",
        "3/3",
    ]
    assert hard.index("65.00") == kd.index("72.00") == pld.index("61.00")
    assert pld.endswith("2/3")
    assert problem == f"    seed 1 failed: no | luck (log: {tmp_path}/pld.log)"


def test_markdown_says_what_was_compared_and_how(compared, tmp_path):
    text = markdown(tmp_path, compared[0], 2, compared[1])
    assert "| kd | 72.00 ± 2.00 | +7.00 ± 4.36 | 77.33 | 3.000 ± 2.646 | 2 | 3/3 | `ce*0.1 + kd(" in text
    # A bar in a cell would end it.
    assert "seed 1 failed: no \\| luck" in text
    assert "2 run(s) side by side" in text
    assert "cache `c`" in text
    assert "- `kd`: arXiv 1503.02531" in text
    assert "| batch_size | `32` |" in text
    assert "what failed" not in markdown(tmp_path, compared[0], 2, compared[1][:2])


def test_files_for_programs(compared, tmp_path):
    write_results(tmp_path, compared[0], 2, compared[1])
    assert (tmp_path / "compare.csv").read_text() == csv_text(compared[1])
    kd, hard, _ = csv.DictReader(io.StringIO(csv_text(compared[1])))
    assert (float(kd["top1_percent"]), float(kd["top1_percent_std"])) == (72, 2)
    assert (float(kd["difference_points"]), hard["difference_points"]) == (7, "")
    assert kd["finished_runs"] == "3"
    first, *_ = json.loads((tmp_path / "results.json").read_text())
    assert first["method"] == "kd"
    assert first["runs"][2] == {"seed": 2, "top1_percent": 74.0, "curve_percent": [90.0, 74.0]}
