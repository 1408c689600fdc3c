"""The picture of a comparison."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.trainer.comparison.test_report import plan, rows
from trainer.comparison.chart import _limits, draw_comparison
from trainer.comparison.standings import Failure, RunResult, standings


def table(tmp_path, count, seeds=3, epochs=4):
    made = plan(tmp_path, ",".join(f"kd(temperature={n})" for n in range(1, count)), seeds=seeds)
    results = [
        RunResult(method, seed, rows(*(0.5 + 0.005 * place + 0.01 * epoch for epoch in range(epochs))))
        for place, method in enumerate(made.methods)
        for seed in range(seeds)
    ]
    return standings(made.methods, results)


def picture(path, lines):
    draw_comparison(path, lines, "digits:test")
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


def test_it_grows_with_the_methods(tmp_path):
    few = picture(tmp_path / "few.png", table(tmp_path, 4))
    many = picture(tmp_path / "many.png", table(tmp_path, 45))
    assert few.width == many.width
    # 41 rows more, each high enough for its label of 9 points at 120 dots an inch.
    assert many.height - few.height >= 41 * 9 / 72 * 120 * 1.5
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize(("count", "seeds", "epochs"), [(1, 1, 1), (2, 1, 1), (9, 2, 3)])
def test_small_comparisons_are_drawn(tmp_path, count, seeds, epochs):
    lines = table(tmp_path, max(count, 2), seeds, epochs)[:count]
    assert len(picture(tmp_path / "a.png", lines).getcolors(maxcolors=1 << 24)) > 10


def test_the_best_have_colours_of_their_own(tmp_path):
    drawn = {colour for _, colour in picture(tmp_path / "a.png", table(tmp_path, 9)).getcolors(1 << 24)}
    assert {(0x1F, 0x77, 0xB4), (0x17, 0xA2, 0xB8), (0x22, 0x22, 0x22), (0x8C, 0x96, 0xA3)} <= drawn


def test_what_failed_is_red_and_has_no_dot(tmp_path):
    lines = table(tmp_path, 3)
    made = [run for line in lines for run in line.runs]
    lost = lines[-2].method
    results = [
        RunResult(run.method, run.seed, (), Failure("lost", tmp_path)) if run.method == lost else run
        for run in made
    ]
    again = standings([line.method for line in lines], results)
    drawn = {colour for _, colour in picture(tmp_path / "a.png", again).getcolors(1 << 24)}
    assert (0xB0, 0x00, 0x20) in drawn
    assert (0xB0, 0x00, 0x20) not in {
        colour for _, colour in picture(tmp_path / "b.png", lines).getcolors(1 << 24)
    }


def test_a_method_far_below_does_not_flatten_the_others(tmp_path):
    lines = table(tmp_path, 9)
    low, high = _limits(lines)
    assert low < 53 < 57 < high
    assert high - low < 6
    methods = [line.method for line in lines]
    fallen = [
        RunResult(run.method, run.seed, rows(0.1, 0.1)) if run.method == methods[4] else run
        for line in lines
        for run in line.runs
    ]
    low, high = _limits(standings(methods, fallen))
    assert 50 < low < 53 < 57 < high
    # Of two, one lower by little is no outlier.
    low, _ = _limits(table(tmp_path, 2))
    assert low < 53
